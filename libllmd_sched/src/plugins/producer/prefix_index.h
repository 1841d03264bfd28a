// Which endpoint was sent which prompt blocks, with an LRU of blocks per endpoint.
//
// A block's hash commits to all blocks before it, so chains that share a block share their front.
// They are kept as runs: stretches of blocks that were sent together, found by their first hash. A
// chain is a path of runs, each entered where the one before it was left; an endpoint holds the
// first blocks of a run. What a request costs grows with the runs on its path, one for each turn of
// a conversation, and hardly with its blocks: those are compared and copied as flat arrays.
//
// An endpoint's list holds runs by recency, and on a path the front is always the more recent; what
// goes is the last block of the oldest run. That is the LRU of single blocks, exactly.
#pragma once

#include <absl/container/flat_hash_map.h>
#include <absl/container/inlined_vector.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <shared_mutex>
#include <span>
#include <utility>
#include <vector>

namespace llmd::sched {

// Thread-safe. Memory is bounded by the sum of the endpoints' capacities: 8 bytes a block and about
// 100 a run.
class PrefixIndex {
 public:
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
  struct Run;
  // An endpoint's part in a run, and that run's neighbours in the endpoint's list.
  struct Holding {
    uint32_t slot = 0;
    uint32_t blocks = 0;  // how many of the run's first ones; at least 1
    Run *older = nullptr, *newer = nullptr;
  };
  struct Run {
    absl::InlinedVector<uint64_t, 2> hashes;   // never empty
    absl::InlinedVector<Holding, 1> holdings;  // by slot; empty only within a call
  };
  struct Lru {
    Run *oldest = nullptr, *newest = nullptr;
    size_t blocks = 0;
  };
  // A run on a chain's path and how many of its blocks belong to the chain.
  using Step = std::pair<Run*, size_t>;

  static Holding* Find(Run& run, uint32_t slot);
  // Leaves in `path` the runs of a chain that is not empty; what no run holds becomes a new one. No
  // run on it is held by the endpoint beyond the chain.
  void Walk(std::span<const uint64_t> chain, uint32_t slot, std::vector<Step>& path);
  void Touch(Run& run, uint32_t slot, size_t blocks);
  void Split(Run& run, size_t at);
  void Evict(uint32_t slot, size_t capacity);
  void Shorten(Holding& holding, uint32_t by);
  void Drop(Run& run, Holding& holding);
  void Trim(Run& run);
  void Link(Run& run, Holding& holding);
  void Unlink(const Holding& holding);

  mutable std::shared_mutex mutex_;
  absl::flat_hash_map<uint64_t, std::unique_ptr<Run>> runs_;  // by first hash; guarded by mutex_
  std::vector<Lru> lrus_;                                     // by slot; guarded by mutex_
  std::atomic<size_t> size_{0};
};

}  // namespace llmd::sched
