#include <algorithm>
#include <array>
#include <mutex>
#include <shared_mutex>

#include "index/clock_map.h"
#include "index/directory.h"
#include "index/mix.h"

namespace llmd::kv {
namespace {

constexpr size_t kShards = 64;
constexpr size_t kMaxList = 4096;  // request keys of one engine key; the oldest goes

// Engines choose their keys: spread them before a shard is chosen.
size_t ShardOf(uint64_t key) {
  return (key * 0x9e3779b97f4a7c15) >> 58;
}

// The same number in another space is another key.
uint64_t KeyIn(uint16_t space, uint64_t key) {
  return space == 0 ? key : key ^ Mix(space);
}
uint64_t EngineKeyIn(NamespaceId ns, uint64_t key) {
  return KeyIn(static_cast<uint16_t>(ns), key);
}

struct Held {
  EndpointId endpoint;
  TierId tier;
  int32_t group;
  friend bool operator==(const Held&, const Held&) = default;
};

struct FlatBounds {
  ClockBounds keys;
  size_t holders_per_key = SIZE_MAX;
};

class FlatIndex final : public Index {
 public:
  FlatIndex(const IndexOptions& options, FlatBounds bounds)
      : Index(options), bounds_(bounds), blocks_of_(kMaxEndpoints) {
    for (size_t i = 0; i < kShards; ++i) {
      requests_[i] = std::make_unique<Shard<Holders>>(bounds.keys);
      engines_[i] = std::make_unique<Shard<Keys>>(bounds.keys);
    }
  }

  std::optional<uint64_t> RequestKeyOf(NamespaceId ns, uint64_t engine_key) const override {
    const uint64_t key = EngineKeyIn(ns, engine_key);
    const Shard<Keys>& shard = *engines_[ShardOf(key)];
    std::shared_lock lock(shard.mutex);
    const Keys* named = shard.map.Find(key);
    if (named == nullptr) return std::nullopt;
    for (auto it = named->rbegin(); it != named->rend(); ++it)
      if (IsHeld(*it)) return KeyIn(directory().SpaceOf(ns).number, *it);
    return std::nullopt;
  }

  void Score(NamespaceId ns, std::span<const uint64_t> keys, const Candidates& candidates,
             std::span<PrefixMatch> out) const override;

  size_t BlocksOf(EndpointId endpoint) const override {
    if (!directory().Has(endpoint)) return 0;
    return blocks_of_[IndexOf(endpoint)].load(std::memory_order_relaxed);
  }

  IndexStats Stats() const override {
    IndexStats stats;
    for (size_t i = 0; i < kShards; ++i) {
      std::shared_lock lock(requests_[i]->mutex);
      stats.blocks += requests_[i]->map.size();
      stats.bytes += requests_[i]->map.bytes();
    }
    for (const auto& shard : engines_) {
      std::shared_lock lock(shard->mutex);
      stats.bytes += shard->map.bytes();
    }
    for (const auto& blocks : blocks_of_) stats.holder_blocks += blocks;
    stats.evicted = evicted_;
    return stats;
  }

 private:
  using Holders = std::vector<Held>;  // oldest first, never empty
  using Keys = std::vector<uint64_t>;
  template <typename Value>
  struct Shard {
    explicit Shard(ClockBounds most) : map(most) {}
    mutable std::shared_mutex mutex;
    ClockMap<Value> map;  // guarded by mutex
  };

  Status DoAdd(const StoredBlocks& blocks, Holder holder) override {
    const Space space = directory().SpaceOf(blocks.ns);
    if (blocks.parent && !RequestKeyOf(blocks.ns, *blocks.parent))
      return NotFound("index: nobody holds the parent, engine key " +
                      std::to_string(*blocks.parent));
    Tie(blocks, space);
    for (uint64_t key : blocks.keys)
      Note(KeyIn(space.number, key), {holder.endpoint, holder.tier, space.group});
    return OkStatus();
  }

  void DoEvict(NamespaceId ns, std::span<const uint64_t> engine_keys, Holder holder) override {
    const Held held{holder.endpoint, holder.tier, directory().SpaceOf(ns).group};
    for (uint64_t engine_key : engine_keys) {
      const uint64_t key = EngineKeyIn(ns, engine_key);
      Shard<Keys>& shard = *engines_[ShardOf(key)];
      std::unique_lock lock(shard.mutex);
      const Keys* named = shard.map.Find(key);
      if (named == nullptr) continue;
      bool empty = true;
      for (uint64_t request_key : *named) empty = Take(request_key, held) && empty;
      if (empty) shard.map.Erase(key);
    }
  }

  void DoEvictChain(NamespaceId ns, std::span<const uint64_t> keys, size_t from,
                    Holder holder) override {
    const Space space = directory().SpaceOf(ns);
    for (uint64_t key : keys.subspan(from))
      Take(KeyIn(space.number, key), {holder.endpoint, holder.tier, space.group});
  }

  void DoClear(EndpointId endpoint) override {
    for (const auto& shard : requests_) {
      std::unique_lock lock(shard->mutex);
      shard->map.EraseIf([&](uint64_t, Holders& held) {
        const size_t gone =
            std::erase_if(held, [&](const Held& h) { return h.endpoint == endpoint; });
        blocks_of_[IndexOf(endpoint)] -= gone;
        return held.empty();
      });
    }
  }

  bool IsHeld(uint64_t key) const {
    const Shard<Holders>& shard = *requests_[ShardOf(key)];
    std::shared_lock lock(shard.mutex);
    return shard.map.Find(key) != nullptr;
  }

  void Note(uint64_t key, const Held& holder) {
    Shard<Holders>& shard = *requests_[ShardOf(key)];
    std::unique_lock lock(shard.mutex);
    const auto gone = [this](const Holders& held) {
      for (const Held& h : held) --blocks_of_[IndexOf(h.endpoint)];
      evicted_ += held.size();
    };
    Holders& held = shard.map.At(key, gone);
    const auto before = static_cast<ptrdiff_t>(held.capacity());
    if (std::erase(held, holder) == 0) ++blocks_of_[IndexOf(holder.endpoint)];
    if (held.size() >= bounds_.holders_per_key) {
      --blocks_of_[IndexOf(held.front().endpoint)];
      held.erase(held.begin());
    }
    held.push_back(holder);
    const auto more = static_cast<ptrdiff_t>(held.capacity()) - before;
    shard.map.Charge(key, more * static_cast<ptrdiff_t>(sizeof(Held)), gone);
  }

  void Tie(const StoredBlocks& blocks, Space space) {
    if (blocks.engine_keys.empty()) return;
    const size_t engines = blocks.engine_keys.size(), requests = blocks.keys.size();
    const size_t n = std::max(engines, requests);
    for (size_t i = 0; i < n; ++i) {
      const uint64_t engine_key = EngineKeyIn(blocks.ns, blocks.engine_keys[i * engines / n]);
      const uint64_t request_key = KeyIn(space.number, blocks.keys[i * requests / n]);
      Shard<Keys>& shard = *engines_[ShardOf(engine_key)];
      std::unique_lock lock(shard.mutex);
      const auto gone = [](const Keys&) {};
      Keys& named = shard.map.At(engine_key, gone);
      const auto before = static_cast<ptrdiff_t>(named.capacity());
      std::erase(named, request_key);
      if (named.size() == kMaxList) named.erase(named.begin());
      named.push_back(request_key);
      const auto more = static_cast<ptrdiff_t>(named.capacity()) - before;
      shard.map.Charge(engine_key, more * static_cast<ptrdiff_t>(sizeof(uint64_t)), gone);
    }
  }

  // True when nobody holds the key afterwards.
  bool Take(uint64_t key, const Held& holder) {
    Shard<Holders>& shard = *requests_[ShardOf(key)];
    std::unique_lock lock(shard.mutex);
    Holders* held = shard.map.Find(key);
    if (held == nullptr) return true;
    blocks_of_[IndexOf(holder.endpoint)] -= std::erase(*held, holder);
    if (!held->empty()) return false;
    shard.map.Erase(key);
    return true;
  }

  const FlatBounds bounds_;
  std::vector<std::atomic<size_t>> blocks_of_;  // by the number inside an endpoint's id
  std::atomic<size_t> evicted_{0};
  std::array<std::unique_ptr<Shard<Holders>>, kShards> requests_;
  std::array<std::unique_ptr<Shard<Keys>>, kShards> engines_;
};

// How far one candidate has come.
struct Progress {
  uint32_t depth = 0;  // keys held so far
  uint32_t since = 0;  // from here on `weight`, not summed up yet
  double weight = 0;
  uint32_t tiers = 0;  // of the present key, a bit each
  std::array<uint32_t, kMaxTiers> tier_depth{};
};

void FlatIndex::Score(NamespaceId ns, std::span<const uint64_t> keys, const Candidates& candidates,
                      std::span<PrefixMatch> out) const {
  LLMD_CHECK(out.size() == candidates.size());
  static thread_local std::vector<Progress> all;
  static thread_local std::vector<uint32_t> holding;
  all.assign(out.size(), {});
  const uint16_t space = directory().SpaceNumberOf(ns);
  const auto sum = [&](uint32_t place, uint32_t until) {
    Progress& p = all[place];
    out[place].score += (until - p.since) * p.weight;
    p.since = until;
  };
  std::ranges::fill(out, PrefixMatch());
  for (uint32_t at = 0; at < keys.size(); ++at) {
    holding.clear();
    {
      const uint64_t key = KeyIn(space, keys[at]);
      const Shard<Holders>& shard = *requests_[ShardOf(key)];
      std::shared_lock lock(shard.mutex);
      const Holders* held = space == Directory::kNoSpace ? nullptr : shard.map.Find(key);
      if (held == nullptr) break;
      for (const Held& h : *held) {
        const uint32_t place = candidates.PlaceOf(h.endpoint);
        if (place == Candidates::kAbsent || all[place].depth < at) continue;
        Progress& p = all[place];
        if (p.depth == at) {
          p.depth = at + 1;
          p.tiers = 0;
          holding.push_back(place);
        }
        p.tiers |= 1u << static_cast<uint32_t>(h.tier);
      }
    }
    if (holding.empty()) break;
    for (uint32_t place : holding) {
      Progress& p = all[place];
      for (uint32_t left = p.tiers; left != 0; left &= left - 1)
        if (uint32_t& depth = p.tier_depth[static_cast<size_t>(__builtin_ctz(left))]; depth == at)
          ++depth;
      if (const double weight = directory().weights()[p.tiers]; weight != p.weight) {
        sum(place, at);
        p.weight = weight;
      }
    }
  }
  for (uint32_t place = 0; place < out.size(); ++place) {
    sum(place, all[place].depth);
    out[place].blocks = all[place].depth;
    out[place].tier_blocks = all[place].tier_depth;
  }
  candidates.ForRepeated([&](uint32_t from, uint32_t to) { out[to] = out[from]; });
}

}  // namespace

std::unique_ptr<Index> MakeFlatIndex(FlatIndexOptions options) {
  FlatBounds bounds;
  bounds.keys.entries = std::max<size_t>(options.max_keys / kShards, 1);
  if (options.max_holders_per_key != 0) bounds.holders_per_key = options.max_holders_per_key;
  return std::make_unique<FlatIndex>(options, bounds);
}

// Half for the blocks, half for the keys of engines.
std::unique_ptr<Index> MakeCostAwareIndex(CostAwareIndexOptions options) {
  FlatBounds bounds;
  bounds.keys.bytes = options.max_bytes / kShards / 2;
  return std::make_unique<FlatIndex>(options, bounds);
}

}  // namespace llmd::kv
