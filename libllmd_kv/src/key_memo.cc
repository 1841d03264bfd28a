#include <sys/random.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <mutex>

#include "llmd/kv/request_keys.h"

namespace llmd::kv {
namespace {

constexpr size_t kWays = 4;
constexpr size_t kLocks = 64;

struct Entry {
  KeyMemo::Name name;
  std::array<uint64_t, KeyMemo::kBlocks> keys;
};

// Entries that share a place. `hand` is the one to go next unless it was used meanwhile.
struct Set {  // empty when all its bytes are zero
  std::array<bool, kWays> full, used;
  uint8_t hand;
  std::array<Entry, kWays> entries;
};

uint64_t Random() {
  uint64_t value = 0;
  LLMD_CHECK(getrandom(&value, sizeof(value), 0) == sizeof(value));
  return value;
}

}  // namespace

struct KeyMemo::State {
  // From calloc, so that pages of sets that nobody wrote to cost nothing.
  explicit State(size_t count)
      : mask(count - 1), sets(static_cast<Set*>(std::calloc(count, sizeof(Set)))) {
    LLMD_CHECK(sets != nullptr);
  }
  Set& Of(const Name& name) const { return sets[name.low & mask]; }
  std::mutex& LockOf(const Name& name) const { return locks[name.low & mask & (kLocks - 1)]; }

  const size_t mask;
  struct Free {
    void operator()(Set* p) const { std::free(p); }
  };
  const std::unique_ptr<Set[], Free> sets;
  mutable std::array<std::mutex, kLocks> locks;  // each guards the sets with its remainder
  mutable std::atomic<uint64_t> hits{0}, misses{0};
};

KeyMemo::KeyMemo(size_t max_bytes)
    : state_(std::make_unique<State>(std::bit_floor(std::max<size_t>(max_bytes / sizeof(Set), 1)))),
      start_(Random()) {}

KeyMemo::~KeyMemo() = default;

KeyMemo::Name KeyMemo::Next(const Name& before, const void* bytes, size_t count) const {
  const XXH128_hash_t content = XXH3_128bits_withSeed(bytes, count, before.low);
  const uint64_t both[4] = {content.low64, content.high64, before.low, before.high};
  const XXH128_hash_t name = XXH3_128bits_withSeed(both, sizeof(both), start_);
  return {name.low64, name.high64};
}

bool KeyMemo::Find(const Name& name, std::span<uint64_t, kBlocks> keys) const {
  Set& set = state_->Of(name);
  std::lock_guard lock(state_->LockOf(name));
  for (size_t way = 0; way < kWays; ++way) {
    if (!set.full[way] || set.entries[way].name != name) continue;
    set.used[way] = true;
    std::ranges::copy(set.entries[way].keys, keys.begin());
    state_->hits.fetch_add(1, std::memory_order_relaxed);
    return true;
  }
  state_->misses.fetch_add(1, std::memory_order_relaxed);
  return false;
}

void KeyMemo::Put(const Name& name, std::span<const uint64_t, kBlocks> keys) {
  Set& set = state_->Of(name);
  std::lock_guard lock(state_->LockOf(name));
  for (size_t way = 0; way < kWays; ++way)
    if (set.full[way] && set.entries[way].name == name) return;
  while (set.full[set.hand] && set.used[set.hand]) {
    set.used[set.hand] = false;
    set.hand = (set.hand + 1) % kWays;
  }
  Entry& entry = set.entries[set.hand];
  entry.name = name;
  std::ranges::copy(keys, entry.keys.begin());
  set.full[set.hand] = true;
  set.hand = (set.hand + 1) % kWays;
}

uint64_t KeyMemo::hits() const {
  return state_->hits.load(std::memory_order_relaxed);
}

uint64_t KeyMemo::misses() const {
  return state_->misses.load(std::memory_order_relaxed);
}

}  // namespace llmd::kv
