// The prompt blocks one endpoint was sent, by recency: a doubly linked list in an array, found by
// hash. About 33 bytes a block. Thread-compatible.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace llmd::sched {

class BlockLru {
 public:
  struct Block {
    uint64_t hash = 0;
    uint8_t shard = 0;  // the caller's; kept with the block
  };
  BlockLru();

  // Makes the chain the most recent, its front most of all, and appends the hashes that were not
  // here to `fresh`.
  void Touch(std::span<const uint64_t> chain, uint8_t shard, std::vector<uint64_t>& fresh);
  // Takes the oldest blocks until `capacity` are left and appends them to `old`, oldest first.
  void Evict(size_t capacity, std::vector<Block>& old);
  size_t size() const { return size_; }

 private:
  struct Node {
    uint64_t hash = 0;
    uint32_t prev = 0, next = 0;
  };
  // Tag is the low half of the hash, which also gives the cell's home; node 0 marks a free cell.
  struct Cell {
    uint32_t tag = 0, node = 0;
  };
  void TouchOne(uint64_t hash, uint8_t shard, std::vector<uint64_t>& fresh);
  uint32_t Allocate(uint64_t hash, uint8_t shard);
  void Unlink(uint32_t n);
  void LinkFront(uint32_t n);
  size_t CellOf(uint64_t hash) const;  // where it is, or the free cell where it would be
  void Erase(uint64_t hash);
  void Grow();

  std::vector<Node> nodes_;      // node 0 is the list's head
  std::vector<uint8_t> shards_;  // by node
  std::vector<uint32_t> free_;
  std::vector<Cell> cells_;
  size_t mask_ = 0, size_ = 0;
};

}  // namespace llmd::sched
