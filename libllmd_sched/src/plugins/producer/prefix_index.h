// Which endpoint was sent which prompt blocks: block hash → bitset of endpoint slots, with an LRU
// per endpoint. Blocks of one chain live in one shard (chosen by the chain's first hash), so a
// lookup takes one lock and stops at the first block that no endpoint holds contiguously.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <span>
#include <vector>

#include "plugins/producer/block_lru.h"
#include "plugins/producer/hash_map.h"

namespace llmd::sched {

// Thread-safe. Memory is bounded by the sum of the endpoints' capacities.
class PrefixIndex {
 public:
  PrefixIndex();
  ~PrefixIndex();

  // Adds to counts[slot] the number of leading blocks of `chain` that the endpoint holds without a
  // hole.
  void Match(std::span<const uint64_t> chain, std::span<uint32_t> counts) const;
  // Notes that the endpoint was sent `chain`; at most `capacity` blocks are kept for it, the front
  // of recent chains longest.
  void Insert(std::span<const uint64_t> chain, uint32_t slot, size_t capacity);
  // Forgets an endpoint.
  void Remove(uint32_t slot);
  // Blocks held, all endpoints together.
  size_t size() const { return size_.load(std::memory_order_relaxed); }

 private:
  static constexpr size_t kShards = 16;
  struct Shard {
    mutable std::shared_mutex mutex;
    std::vector<HashMap> groups;  // of 64 slots each: hash → bits; guarded by mutex
  };
  using Block = BlockLru::Block;
  struct Lru {
    std::mutex mutex;
    BlockLru blocks;  // guarded by mutex
  };
  static size_t ShardOf(uint64_t first_hash) { return first_hash >> 60; }
  void SetBits(size_t shard, std::span<const uint64_t> hashes, uint32_t slot);
  void ClearBits(std::span<const Block> blocks, uint32_t slot);
  Lru& LruOf(uint32_t slot);

  std::array<Shard, kShards> shards_;
  std::atomic<size_t> size_{0};
  mutable std::mutex lrus_mutex_;
  std::vector<std::unique_ptr<Lru>> lrus_;  // by slot; guarded by lrus_mutex_
};

}  // namespace llmd::sched
