// KV workloads with known answers: who stores and drops which blocks, and queries whose right
// answer follows from how they were made.
//   W1  many endpoints hold the front of a few very long prompts: endpoint p the first
//       depth·(p+1)/endpoints blocks ("ladder"), or all of them ("full")
//   W2  sessions behind shared system and group prefixes; a fifth of their tails lose their last
//   half
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <map>
#include <random>
#include <set>
#include <vector>

namespace llmd::bench {

constexpr uint64_t Spread(uint64_t x) {  // splitmix64's finaliser
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}
// The key of a block, of its prefix; and the hash of its tokens alone.
constexpr uint64_t KeyOf(uint64_t segment, uint64_t offset) {
  return Spread(segment << 20 | offset);
}
constexpr uint64_t ContentOf(uint64_t key) {
  return Spread(key ^ 0xd1b54a32d192ed03);
}

// Blocks [start, start + count) of a segment; dropped ones from the last to the first.
struct BlockOp {
  bool store = true;
  uint16_t endpoint = 0;
  uint32_t count = 0;
  uint64_t segment = 0, start = 0;
  uint64_t parent = 0;  // the key before the first; 0 = none
};

struct BlockQuery {
  std::vector<uint64_t> keys;
  uint64_t check = 0;  // sum of (endpoint + 1) · blocks held from the first on
};

struct Workload {
  uint16_t endpoints = 96;
  std::vector<BlockOp> ops;
  std::vector<BlockQuery> queries;
  uint64_t stored = 0, live = 0;  // holder-blocks

  void Store(uint16_t endpoint, uint64_t parent, uint64_t segment, uint64_t count) {
    for (uint64_t at = 0; at < count; at += 128) {
      const auto n = static_cast<uint32_t>(std::min<uint64_t>(128, count - at));
      ops.push_back({true, endpoint, n, segment, at, at == 0 ? parent : KeyOf(segment, at - 1)});
    }
    stored += count;
    live += count;
  }
  void Drop(uint16_t endpoint, uint64_t segment, uint64_t from, uint64_t end) {
    for (uint64_t to = end; to > from;) {
      const auto n = static_cast<uint32_t>(std::min<uint64_t>(16, to - from));
      to -= n;
      ops.push_back({false, endpoint, n, segment, to, 0});
    }
    live -= end - from;
  }
};

inline void FillKeys(const BlockOp& op, std::vector<uint64_t>& keys) {
  keys.resize(op.count);
  for (uint32_t i = 0; i < op.count; ++i)
    keys[i] = KeyOf(op.segment, op.start + (op.store ? i : op.count - 1 - i));
}

inline Workload MakeW1(bool full, uint64_t depth = 3750, uint64_t prompts = 8) {
  Workload w;
  for (uint64_t c = 0; c < prompts; ++c) {
    BlockQuery query;
    for (uint64_t i = 0; i < depth; ++i) query.keys.push_back(KeyOf(1000 + c, i));
    for (uint16_t p = 0; p < w.endpoints; ++p) {
      const uint64_t held = full ? depth : depth * (p + 1u) / w.endpoints;
      w.Store(p, 0, 1000 + c, held);
      query.check += (p + 1u) * held;
    }
    w.queries.push_back(std::move(query));
  }
  return w;
}

inline Workload MakeW2(uint64_t total, uint64_t seed = 7) {
  constexpr uint64_t kSystems = 64, kSystemBlocks = 64, kGroups = 16, kGroupBlocks = 128;
  struct Session {
    uint64_t system, group, id, blocks;
    std::vector<std::pair<uint16_t, uint64_t>> held;
  };
  Workload w;
  std::mt19937_64 rng(seed);
  const auto unit = [&] { return static_cast<double>(rng() >> 11) * 0x1p-53; };
  // Zipf with exponent 1.3 over all numbers, folded; by rejection (Devroye 1986, X.6).
  const auto zipf = [&] {
    const double a = 1.3, b = std::pow(2.0, a - 1);
    for (;;) {
      const double x = std::floor(std::pow(1 - unit(), -1 / (a - 1)));
      const double t = std::pow(1 + 1 / x, a - 1);
      if (x < 0x1p53 && unit() * x * (t - 1) / (b - 1) <= t / b) return static_cast<uint64_t>(x);
    }
  };
  std::vector<std::set<uint64_t>> has(w.endpoints);  // shared segments held
  std::vector<Session> sessions;
  for (uint64_t id = 10'000'001; w.stored < total; ++id) {
    Session s{zipf() % kSystems, 0, id, 32 + rng() % 705, {}};
    s.group = s.system * kGroups + rng() % kGroups;
    const double dice = unit();
    const size_t holders = dice < 0.8 ? 1 : dice < 0.95 ? 2 : 4;
    std::vector<uint16_t> chosen;
    while (chosen.size() < holders) {
      const auto p = static_cast<uint16_t>(rng() % w.endpoints);
      if (std::find(chosen.begin(), chosen.end(), p) == chosen.end()) chosen.push_back(p);
    }
    for (uint16_t p : chosen) {
      if (has[p].insert(1'000'000 + s.system).second)
        w.Store(p, 0, 1'000'000 + s.system, kSystemBlocks);
      if (has[p].insert(2'000'000 + s.group).second)
        w.Store(p, KeyOf(1'000'000 + s.system, kSystemBlocks - 1), 2'000'000 + s.group,
                kGroupBlocks);
      const uint64_t held = p == chosen[0] ? s.blocks : 1 + rng() % s.blocks;
      w.Store(p, KeyOf(2'000'000 + s.group, kGroupBlocks - 1), id, held);
      s.held.emplace_back(p, held);
    }
    sessions.push_back(std::move(s));
  }
  std::shuffle(sessions.begin(), sessions.end(), rng);
  for (size_t i = 0; i < sessions.size() / 5; ++i) {
    for (auto& [p, held] : sessions[i].held) {
      if (held / 2 == 0) continue;
      w.Drop(p, sessions[i].id, held / 2, held);
      held /= 2;
    }
  }
  std::shuffle(sessions.begin(), sessions.end(), rng);
  for (size_t i = 0; i < std::min<size_t>(4000, sessions.size()); ++i) {
    const Session& s = sessions[i];
    BlockQuery q;
    const auto put = [&](uint64_t segment, uint64_t count) {
      for (uint64_t k = 0; k < count; ++k) q.keys.push_back(KeyOf(segment, k));
    };
    put(1'000'000 + s.system, kSystemBlocks);
    put(2'000'000 + s.group, kGroupBlocks);
    put(s.id, s.blocks);
    put(90'000'000 + i, rng() % 64);
    for (uint16_t p = 0; p < w.endpoints; ++p) {
      if (has[p].count(1'000'000 + s.system) == 0) continue;
      uint64_t depth = kSystemBlocks;
      if (has[p].count(2'000'000 + s.group) != 0) {
        depth += kGroupBlocks;
        for (const auto& [holder, held] : s.held) depth += holder == p ? held : 0;
      }
      q.check += (p + 1u) * depth;
    }
    w.queries.push_back(std::move(q));
  }
  return w;
}

// Two files for programs in other languages. PREFIX.ops: "LKV1", u32 operations, then of each u8
// type (0 store, 1 drop), u8 0, u16 endpoint, u32 n, u64 parent (0 = none), u64 key[n] and, of a
// store, u64 content[n]. PREFIX.q: "LKQ1", u32 queries, then of each u32 n, u64 key[n], u64
// content[n], u64 check. Little-endian.
inline bool WriteWorkload(const Workload& w, const std::string& prefix) {
  const auto put = [](std::FILE* f, const auto& value) {
    std::fwrite(&value, sizeof(value), 1, f);
  };
  const auto put_keys = [&](std::FILE* f, const std::vector<uint64_t>& keys, bool content) {
    std::fwrite(keys.data(), sizeof(uint64_t), keys.size(), f);
    for (uint64_t key : keys)
      if (content) put(f, ContentOf(key));
  };
  std::FILE* f = std::fopen((prefix + ".ops").c_str(), "wb");
  if (f == nullptr) return false;
  std::fputs("LKV1", f);
  put(f, static_cast<uint32_t>(w.ops.size()));
  std::vector<uint64_t> keys;
  for (const BlockOp& op : w.ops) {
    FillKeys(op, keys);
    put(f, static_cast<uint16_t>(op.store ? 0 : 1));
    put(f, op.endpoint);
    put(f, op.count);
    put(f, op.parent);
    put_keys(f, keys, op.store);
  }
  bool right = std::fclose(f) == 0;
  f = std::fopen((prefix + ".q").c_str(), "wb");
  if (f == nullptr) return false;
  std::fputs("LKQ1", f);
  put(f, static_cast<uint32_t>(w.queries.size()));
  for (const BlockQuery& q : w.queries) {
    put(f, static_cast<uint32_t>(q.keys.size()));
    put_keys(f, q.keys, true);
    put(f, q.check);
  }
  return std::fclose(f) == 0 && right;
}

}  // namespace llmd::bench
