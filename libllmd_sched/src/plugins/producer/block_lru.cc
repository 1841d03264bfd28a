#include "plugins/producer/block_lru.h"

#include <utility>

#include "plugins/producer/hash_home.h"

namespace llmd::sched {
namespace {

// Far enough ahead for a cell to arrive from memory, near enough to be there still.
constexpr size_t kAhead = 12;

}  // namespace

BlockLru::BlockLru() : cells_(GrownHashTable(0)) {
  pages_.push_back(std::make_unique<Page>());
}

void BlockLru::Touch(std::span<const uint64_t> chain, uint8_t shard, size_t capacity,
                     std::vector<uint64_t>& fresh, std::vector<Block>& old) {
  Evict(capacity, old);  // it may have been larger before
  scout_ = 0;
  // Back to front, so that the front of a chain outlives its tail.
  for (size_t i = chain.size(); i-- > 0;) {
    if (i >= kAhead) __builtin_prefetch(&cells_[Home(chain[i - kAhead])]);
    if (!TouchOne(chain[i], shard)) continue;
    fresh.push_back(chain[i]);
    if (size_ > capacity) old.push_back(PopOldest());
  }
}

bool BlockLru::TouchOne(uint64_t hash, uint8_t shard) {
  Cell& cell = cells_[CellOf(hash)];
  if (cell.node != 0) {
    Unlink(cell.node);
    LinkFront(cell.node);
    return false;
  }
  const uint32_t node = Allocate(hash, shard);
  cell = {static_cast<uint32_t>(hash), node};
  LinkFront(node);
  if (++size_ * 8 > cells_.size() * 7) Grow();
  return true;
}

void BlockLru::Evict(size_t capacity, std::vector<Block>& old) {
  scout_ = 0;
  while (size_ > capacity) old.push_back(PopOldest());
}

BlockLru::Block BlockLru::PopOldest() {
  for (size_t i = scout_ == 0 ? kAhead : 1; i > 0; --i) {
    scout_ = At(scout_).prev;
    __builtin_prefetch(&cells_[Home(At(scout_).hash)]);
  }
  const uint32_t last = At(0).prev;
  const Block block{At(last).hash, ShardAt(last)};
  Unlink(last);
  free_.push_back(last);
  Erase(block.hash);
  --size_;
  return block;
}

size_t BlockLru::CellOf(uint64_t hash) const {
  const auto tag = static_cast<uint32_t>(hash);
  for (size_t i = Home(hash);; i = Next(i)) {
    const Cell& cell = cells_[i];
    if (cell.node == 0 || (cell.tag == tag && At(cell.node).hash == hash)) return i;
  }
}

void BlockLru::Erase(uint64_t hash) {
  size_t hole = CellOf(hash);
  for (size_t i = Next(hole); cells_[i].node != 0; i = Next(i)) {
    if (!MayFill(hole, Home(cells_[i].tag), i)) continue;
    cells_[hole] = cells_[i];
    hole = i;
  }
  cells_[hole] = {};
}

void BlockLru::Grow() {
  const std::vector<Cell> old =
      std::exchange(cells_, std::vector<Cell>(GrownHashTable(cells_.size())));
  for (const Cell& cell : old) {
    if (cell.node == 0) continue;
    size_t i = Home(cell.tag);
    while (cells_[i].node != 0) i = Next(i);
    cells_[i] = cell;
  }
}

size_t BlockLru::Home(uint64_t hash) const {
  return HashHome(static_cast<uint32_t>(hash), cells_.size());
}

uint32_t BlockLru::Allocate(uint64_t hash, uint8_t shard) {
  uint32_t n = nodes_;
  if (!free_.empty()) {
    n = free_.back();
    free_.pop_back();
  } else if (++nodes_ > pages_.size() * kPage) {
    pages_.push_back(std::make_unique<Page>());
  }
  At(n).hash = hash;
  ShardAt(n) = shard;
  return n;
}

void BlockLru::Unlink(uint32_t n) {
  const Node& node = At(n);
  At(node.prev).next = node.next;
  At(node.next).prev = node.prev;
}

void BlockLru::LinkFront(uint32_t n) {
  Node &head = At(0), &node = At(n);
  node.prev = 0;
  node.next = head.next;
  At(head.next).prev = n;
  head.next = n;
}

}  // namespace llmd::sched
