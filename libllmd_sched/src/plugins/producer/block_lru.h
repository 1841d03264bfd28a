// The prompt blocks one endpoint was sent, by recency: a doubly linked list in an array, found by
// hash. About 30 bytes a block. Thread-compatible.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
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

  // Makes the chain, of at most `capacity` blocks, the most recent, its front most of all. Appends
  // the hashes that were not here to `fresh`, and to `old` the blocks that had to go for them,
  // oldest first; one that goes before the chain comes to it is in both.
  void Touch(std::span<const uint64_t> chain, uint8_t shard, size_t capacity,
             std::vector<uint64_t>& fresh, std::vector<Block>& old);
  // Takes the oldest blocks until `capacity` are left and appends them to `old`.
  void Evict(size_t capacity, std::vector<Block>& old);
  size_t size() const { return size_; }

 private:
  struct Node {
    uint64_t hash = 0;
    uint32_t prev = 0, next = 0;
  };
  // Nodes come in pages, so that a growing list leaves no smaller copies of itself behind.
  static constexpr uint32_t kPage = 512;
  struct Page {
    Node nodes[kPage];
    uint8_t shards[kPage];
  };
  // Tag is the low half of the hash, which also gives the cell's home; node 0 marks a free cell.
  struct Cell {
    uint32_t tag = 0, node = 0;
  };
  Node& At(uint32_t n) { return pages_[n / kPage]->nodes[n % kPage]; }
  const Node& At(uint32_t n) const { return pages_[n / kPage]->nodes[n % kPage]; }
  uint8_t& ShardAt(uint32_t n) { return pages_[n / kPage]->shards[n % kPage]; }
  // True when the block is new.
  bool TouchOne(uint64_t hash, uint8_t shard);
  Block PopOldest();
  uint32_t Allocate(uint64_t hash, uint8_t shard);
  void Unlink(uint32_t n);
  void LinkFront(uint32_t n);
  size_t Home(uint64_t hash) const;
  size_t Next(size_t cell) const { return cell + 1 == cells_.size() ? 0 : cell + 1; }
  size_t CellOf(uint64_t hash) const;  // where it is, or the free cell where it would be
  void Erase(uint64_t hash);
  void Grow();

  std::vector<std::unique_ptr<Page>> pages_;  // node 0 is the list's head
  uint32_t nodes_ = 1;                        // made so far
  std::vector<uint32_t> free_;
  std::vector<Cell> cells_;
  size_t size_ = 0;
  uint32_t scout_ = 0;  // a few nodes before the oldest, whose cells are fetched ahead; a guess
};

}  // namespace llmd::sched
