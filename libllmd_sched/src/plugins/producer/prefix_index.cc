#include "plugins/producer/prefix_index.h"

#include <algorithm>
#include <bit>

namespace llmd::sched {

namespace {

// As far ahead as memory is slow.
constexpr size_t kAhead = 12;

}  // namespace

PrefixIndex::PrefixIndex() = default;
PrefixIndex::~PrefixIndex() = default;

void PrefixIndex::Match(std::span<const uint64_t> chain, std::span<uint32_t> counts) const {
  if (chain.empty()) return;
  const Shard& shard = shards_[ShardOf(chain[0])];
  std::shared_lock lock(shard.mutex);
  for (size_t g = 0; g < shard.groups.size() && g * 64 < counts.size(); ++g) {
    uint64_t alive = ~uint64_t{0};
    size_t depth = 0;
    const auto settle = [&](uint64_t lost) {
      for (; lost != 0; lost &= lost - 1) {
        const size_t slot = g * 64 + static_cast<size_t>(std::countr_zero(lost));
        if (slot < counts.size()) counts[slot] += static_cast<uint32_t>(depth);
      }
    };
    for (; depth < chain.size() && alive != 0; ++depth) {
      if (depth + kAhead < chain.size()) shard.groups[g].Prefetch(chain[depth + kAhead]);
      const uint64_t* bits = shard.groups[g].Find(chain[depth]);
      const uint64_t still = bits ? alive & *bits : 0;
      settle(alive & ~still);
      alive = still;
    }
    settle(alive);
  }
}

void PrefixIndex::Insert(std::span<const uint64_t> chain, uint32_t slot, size_t capacity) {
  if (chain.empty() || capacity == 0) return;
  const size_t shard = ShardOf(chain[0]);
  // What does not fit would be evicted in this same call; the front of the chain is what can match.
  chain = chain.first(std::min(chain.size(), capacity));
  static thread_local std::vector<uint64_t> fresh;
  static thread_local std::vector<Block> old;
  fresh.clear();
  old.clear();
  Lru& lru = LruOf(slot);
  std::lock_guard lock(lru.mutex);
  lru.blocks.Touch(chain, static_cast<uint8_t>(shard), capacity, fresh, old);
  // First out, then in: a block may be in both, and the tables need not grow for what stays only a
  // moment.
  ClearBits(old, slot);
  SetBits(shard, fresh, slot);
}

void PrefixIndex::Remove(uint32_t slot) {
  std::vector<Block> old;
  Lru& lru = LruOf(slot);
  std::lock_guard lock(lru.mutex);
  lru.blocks.Evict(0, old);
  lru.blocks = BlockLru();
  ClearBits(old, slot);
}

void PrefixIndex::SetBits(size_t shard, std::span<const uint64_t> hashes, uint32_t slot) {
  if (hashes.empty()) return;
  size_.fetch_add(hashes.size(), std::memory_order_relaxed);
  Shard& s = shards_[shard];
  std::unique_lock lock(s.mutex);
  if (s.groups.size() <= slot / 64) s.groups.resize(slot / 64 + 1);
  HashMap& group = s.groups[slot / 64];
  for (size_t i = 0; i < hashes.size(); ++i) {
    if (i + kAhead < hashes.size()) group.Prefetch(hashes[i + kAhead]);
    group.At(hashes[i]) |= uint64_t{1} << (slot % 64);
  }
}

void PrefixIndex::ClearBits(std::span<const Block> blocks, uint32_t slot) {
  size_.fetch_sub(blocks.size(), std::memory_order_relaxed);
  // Blocks leave as their chains came: in long runs of one shard.
  for (size_t i = 0; i < blocks.size();) {
    const uint8_t shard = blocks[i].shard;
    Shard& s = shards_[shard];
    std::unique_lock lock(s.mutex);
    HashMap& group = s.groups[slot / 64];
    for (; i < blocks.size() && blocks[i].shard == shard; ++i) {
      if (i + kAhead < blocks.size()) group.Prefetch(blocks[i + kAhead].hash);
      uint64_t* bits = group.Find(blocks[i].hash);
      if (bits == nullptr) continue;
      *bits &= ~(uint64_t{1} << (slot % 64));
      if (*bits == 0) group.EraseFound(bits);
    }
  }
}

PrefixIndex::Lru& PrefixIndex::LruOf(uint32_t slot) {
  std::lock_guard lock(lrus_mutex_);
  if (lrus_.size() <= slot) lrus_.resize(slot + 1);
  if (!lrus_[slot]) lrus_[slot] = std::make_unique<Lru>();
  return *lrus_[slot];
}

}  // namespace llmd::sched
