#include "plugins/producer/block_lru.h"

namespace llmd::sched {
namespace {

// Far enough ahead for a cell to arrive from memory, near enough to be there still.
constexpr size_t kAhead = 12;

}  // namespace

BlockLru::BlockLru() : nodes_(1), shards_(1), cells_(16), mask_(15) {}

void BlockLru::Touch(std::span<const uint64_t> chain, uint8_t shard, std::vector<uint64_t>& fresh) {
  // Back to front, so that the front of a chain outlives its tail.
  for (size_t i = chain.size(); i-- > 0;) {
    if (i >= kAhead) __builtin_prefetch(&cells_[chain[i - kAhead] & mask_]);
    TouchOne(chain[i], shard, fresh);
  }
}

void BlockLru::TouchOne(uint64_t hash, uint8_t shard, std::vector<uint64_t>& fresh) {
  Cell& cell = cells_[CellOf(hash)];
  if (cell.node != 0) {
    Unlink(cell.node);
    return LinkFront(cell.node);
  }
  const uint32_t node = Allocate(hash, shard);
  cell = {static_cast<uint32_t>(hash), node};
  LinkFront(node);
  fresh.push_back(hash);
  if (++size_ * 10 > cells_.size() * 7) Grow();
}

void BlockLru::Evict(size_t capacity, std::vector<Block>& old) {
  if (size_ <= capacity) return;
  const size_t first = old.size(), count = size_ - capacity;
  for (size_t i = 0; i < count; ++i) {
    const uint32_t last = nodes_[0].prev;
    old.push_back({nodes_[last].hash, shards_[last]});
    Unlink(last);
    free_.push_back(last);
  }
  for (size_t i = first; i < old.size(); ++i) {
    if (i + kAhead < old.size()) __builtin_prefetch(&cells_[old[i + kAhead].hash & mask_]);
    Erase(old[i].hash);
  }
  size_ = capacity;
}

size_t BlockLru::CellOf(uint64_t hash) const {
  const auto tag = static_cast<uint32_t>(hash);
  for (size_t i = hash & mask_;; i = (i + 1) & mask_) {
    const Cell& cell = cells_[i];
    if (cell.node == 0 || (cell.tag == tag && nodes_[cell.node].hash == hash)) return i;
  }
}

void BlockLru::Erase(uint64_t hash) {
  size_t hole = CellOf(hash);
  for (size_t i = (hole + 1) & mask_; cells_[i].node != 0; i = (i + 1) & mask_) {
    // Cell i may move back to the hole unless its home lies between the two.
    if (((i - cells_[i].tag) & mask_) < ((i - hole) & mask_)) continue;
    cells_[hole] = cells_[i];
    hole = i;
  }
  cells_[hole] = {};
}

void BlockLru::Grow() {
  std::vector<Cell> bigger(cells_.size() * 2);
  mask_ = bigger.size() - 1;
  for (const Cell& cell : cells_) {
    if (cell.node == 0) continue;
    size_t i = cell.tag & mask_;
    while (bigger[i].node != 0) i = (i + 1) & mask_;
    bigger[i] = cell;
  }
  cells_ = std::move(bigger);
}

uint32_t BlockLru::Allocate(uint64_t hash, uint8_t shard) {
  if (free_.empty()) {
    nodes_.push_back({hash});
    shards_.push_back(shard);
    return static_cast<uint32_t>(nodes_.size() - 1);
  }
  const uint32_t n = free_.back();
  free_.pop_back();
  nodes_[n].hash = hash;
  shards_[n] = shard;
  return n;
}

void BlockLru::Unlink(uint32_t n) {
  nodes_[nodes_[n].prev].next = nodes_[n].next;
  nodes_[nodes_[n].next].prev = nodes_[n].prev;
}

void BlockLru::LinkFront(uint32_t n) {
  nodes_[n].prev = 0;
  nodes_[n].next = nodes_[0].next;
  nodes_[nodes_[0].next].prev = n;
  nodes_[0].next = n;
}

}  // namespace llmd::sched
