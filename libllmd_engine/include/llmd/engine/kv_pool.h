// Who owns which KV block, and which blocks can be found again by their content. Pure bookkeeping:
// the bytes live in a kv::Region, which the observer ties in. Order rules are vLLM's
// (vllm/v1/core/block_pool.py): block 0 is the null block and never handed out; blocks are taken
// from the head of the free list; unhashed ones come back to its head, hashed ones to its tail, so
// that the tail is the most recently used cached content. Owned by the engine thread. No operation
// allocates after construction, except into the caller's vectors.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "llmd/kv/block_hash.h"

namespace llmd::engine {

// What a publisher of KV events and the fence of a region need to know. Called on the engine
// thread, in order.
class KvPoolObserver {
 public:
  virtual ~KvPoolObserver() = default;
  // `block` has a new owner, who may write it once this returns.
  virtual void HandedOut(int32_t block) {}
  // Full blocks became findable. `tokens` is [digests.size() * block_size]; `parent` is nothing
  // (size 0) for a first block.
  virtual void Stored(const kv::Digest& parent, std::span<const kv::Digest> digests,
                      std::span<const int32_t> tokens) {}
  virtual void Removed(const kv::Digest& digest) {}
  virtual void Cleared() {}
};

class KvPool {
 public:
  // `num_blocks` >= 2 counts the null block. `observer` may be null and must outlive the pool.
  KvPool(int num_blocks, int block_size, bool enable_caching, KvPoolObserver* observer = nullptr);
  KvPool(const KvPool&) = delete;
  KvPool& operator=(const KvPool&) = delete;

  int block_size() const { return block_size_; }
  bool caching() const { return caching_; }
  // Blocks that can be owned: all but the null block.
  int num_usable() const { return static_cast<int>(blocks_.size()) - 1; }
  // Blocks nobody owns, cached ones among them.
  int num_free() const { return num_free_; }
  int num_cached() const { return num_cached_; }
  int ref_count(int32_t block) const { return blocks_[block].refs; }
  bool cached(int32_t block) const { return blocks_[block].digest.size != 0; }
  // Head first; for tests and diagnostics.
  std::vector<int32_t> FreeList() const;

  // Appends `n` blocks owned once to `out`, evicting their cached content. False, and nothing
  // happens, when fewer are free.
  bool Allocate(int n, std::vector<int32_t>& out);
  // Appends the blocks that hold the longest cached prefix of `chain`, at most `max_blocks`. They
  // are not owned yet: Touch before anything is allocated.
  void Lookup(std::span<const kv::Digest> chain, int max_blocks, std::vector<int32_t>& out) const;
  // One more owner for each block.
  void Touch(std::span<const int32_t> blocks);
  // One owner fewer for each block, last block first, so that the tail of a prefix is evicted
  // before its head.
  void Free(std::span<const int32_t> blocks);
  // Makes owned full blocks findable under their digests. Already findable ones keep their digest.
  void Commit(std::span<const int32_t> blocks, const kv::Digest& parent,
              std::span<const kv::Digest> digests, std::span<const int32_t> tokens);
  // Forgets the content of a block, whoever owns it: it turned out wrong.
  void Evict(int32_t block);
  // Forgets all content. False, and nothing happens, while any block is owned.
  bool Reset();

 private:
  struct Block {
    kv::Digest digest;  // size 0 = not findable
    int32_t refs = 0;
    int32_t prev = 0, next = 0;  // free list; 0, the null block, is its sentinel
    int32_t chain_next = -1;     // next block of the same bucket
  };

  void Unlink(int32_t block);
  void InsertBetween(int32_t block, int32_t prev, int32_t next);
  int32_t Find(const kv::Digest& digest) const;
  size_t Bucket(const kv::Digest& digest) const;
  void InsertHash(int32_t block, const kv::Digest& digest);

  const int block_size_;
  const bool caching_;
  KvPoolObserver* const observer_;
  std::vector<Block> blocks_;
  std::vector<int32_t> buckets_;  // heads of chains, -1 = empty
  int num_free_ = 0;
  int num_cached_ = 0;
};

}  // namespace llmd::engine
