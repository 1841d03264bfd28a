#include "llmd/engine/kv_pool.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "llmd/status.h"

namespace llmd::engine {
namespace {

KvPoolObserver& SilentObserver() {
  static KvPoolObserver observer;
  return observer;
}

}  // namespace

KvPool::KvPool(int num_blocks, int block_size, bool enable_caching, KvPoolObserver* observer)
    : block_size_(block_size),
      caching_(enable_caching),
      observer_(observer != nullptr ? observer : &SilentObserver()),
      blocks_(num_blocks),
      buckets_(std::bit_ceil(static_cast<size_t>(num_blocks) * 2), -1) {
  LLMD_CHECK(num_blocks >= 2 && block_size >= 1);
  blocks_[0].refs = 1;
  for (int32_t block = 1; block < num_blocks; ++block) InsertBetween(block, blocks_[0].prev, 0);
}

std::vector<int32_t> KvPool::FreeList() const {
  std::vector<int32_t> out;
  for (int32_t block = blocks_[0].next; block != 0; block = blocks_[block].next)
    out.push_back(block);
  return out;
}

void KvPool::Unlink(int32_t block) {
  Block& b = blocks_[block];
  blocks_[b.prev].next = b.next;
  blocks_[b.next].prev = b.prev;
  --num_free_;
}

void KvPool::InsertBetween(int32_t block, int32_t prev, int32_t next) {
  blocks_[block].prev = prev;
  blocks_[block].next = next;
  blocks_[prev].next = block;
  blocks_[next].prev = block;
  ++num_free_;
}

bool KvPool::Allocate(int n, std::vector<int32_t>& out) {
  if (n > num_free_) return false;
  for (int i = 0; i < n; ++i) {
    const int32_t block = blocks_[0].next;
    Unlink(block);
    if (cached(block)) Evict(block);
    blocks_[block].refs = 1;
    observer_->HandedOut(block);
    out.push_back(block);
  }
  return true;
}

void KvPool::Lookup(std::span<const kv::Digest> chain, int max_blocks,
                    std::vector<int32_t>& out) const {
  if (!caching_) return;
  const size_t limit = std::min(chain.size(), static_cast<size_t>(std::max(max_blocks, 0)));
  for (size_t i = 0; i < limit; ++i) {
    const int32_t block = Find(chain[i]);
    if (block < 0) return;
    out.push_back(block);
  }
}

void KvPool::Touch(std::span<const int32_t> blocks) {
  for (const int32_t block : blocks) {
    if (blocks_[block].refs++ == 0) Unlink(block);
  }
}

void KvPool::Free(std::span<const int32_t> blocks) {
  for (size_t i = blocks.size(); i-- > 0;) {
    const int32_t block = blocks[i];
    LLMD_CHECK(block > 0 && blocks_[block].refs > 0);
    if (--blocks_[block].refs > 0) continue;
    if (cached(block)) {
      InsertBetween(block, blocks_[0].prev, 0);
    } else {
      InsertBetween(block, 0, blocks_[0].next);
    }
  }
}

void KvPool::Commit(std::span<const int32_t> blocks, const kv::Digest& parent,
                    std::span<const kv::Digest> digests, std::span<const int32_t> tokens) {
  if (!caching_ || blocks.empty()) return;
  for (size_t i = 0; i < blocks.size(); ++i) {
    if (!cached(blocks[i])) InsertHash(blocks[i], digests[i]);
  }
  observer_->Stored(parent, digests, tokens);
}

void KvPool::Evict(int32_t block) {
  if (!cached(block)) return;
  Block& b = blocks_[block];
  int32_t* link = &buckets_[Bucket(b.digest)];
  while (*link != block) link = &blocks_[*link].chain_next;
  *link = b.chain_next;
  b.chain_next = -1;
  const kv::Digest digest = b.digest;
  b.digest = {};
  --num_cached_;
  observer_->Removed(digest);
}

bool KvPool::Reset() {
  if (num_free_ != num_usable()) return false;
  for (Block& b : blocks_) {
    b.digest = {};
    b.chain_next = -1;
  }
  std::fill(buckets_.begin(), buckets_.end(), -1);
  num_cached_ = 0;
  observer_->Cleared();
  return true;
}

int32_t KvPool::Find(const kv::Digest& digest) const {
  int32_t block = buckets_[Bucket(digest)];
  while (block >= 0 && !(blocks_[block].digest == digest)) block = blocks_[block].chain_next;
  return block;
}

// Digests are hashes already, so any of their bytes spread well.
size_t KvPool::Bucket(const kv::Digest& digest) const {
  uint64_t head;
  std::memcpy(&head, digest.bytes.data(), sizeof head);
  return static_cast<size_t>(head) & (buckets_.size() - 1);
}

// Appended, so that of several blocks with one content the oldest is found.
void KvPool::InsertHash(int32_t block, const kv::Digest& digest) {
  blocks_[block].digest = digest;
  int32_t* link = &buckets_[Bucket(digest)];
  while (*link >= 0) link = &blocks_[*link].chain_next;
  *link = block;
  ++num_cached_;
}

}  // namespace llmd::engine
