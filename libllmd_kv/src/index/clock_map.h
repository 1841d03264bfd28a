// A hash map of bounded size that drops what was not used for a while (the clock algorithm: a hand
// passes over the entries and takes the first that nobody touched since its last round, or since it
// came).
#pragma once

#include <absl/container/flat_hash_map.h>

#include <atomic>
#include <cstdint>
#include <deque>
#include <utility>
#include <vector>

namespace llmd::kv {

// Readers may run beside each other (Find marks an entry as used); writers alone.
template <typename Value>
class ClockMap {
 public:
  explicit ClockMap(size_t most) : most_(most > 0 ? most : 1) {}

  Value* Find(uint64_t key) {
    const auto it = where_.find(key);
    if (it == where_.end()) return nullptr;
    Cell& cell = cells_[it->second];
    cell.used.store(true, std::memory_order_relaxed);
    return &cell.value;
  }
  const Value* Find(uint64_t key) const { return const_cast<ClockMap*>(this)->Find(key); }
  // The value, made when absent, in place of another when the map is full.
  Value& At(uint64_t key) {
    if (Value* found = Find(key)) return *found;
    const size_t at = FreeCell();
    Cell& cell = cells_[at];
    cell.key = key;
    cell.full = true;
    cell.used.store(false, std::memory_order_relaxed);
    where_.emplace(key, at);
    return cell.value;
  }
  void Erase(uint64_t key) {
    const auto it = where_.find(key);
    if (it == where_.end()) return;
    Empty(it->second);
    free_.push_back(it->second);
    where_.erase(it);
  }
  // Calls each(key, value); entries for which it returns true go.
  template <typename Each>
  void EraseIf(Each each) {
    for (size_t i = 0; i < cells_.size(); ++i) {
      if (!cells_[i].full || !each(cells_[i].key, cells_[i].value)) continue;
      where_.erase(cells_[i].key);
      Empty(i);
      free_.push_back(i);
    }
  }
  size_t size() const { return where_.size(); }

 private:
  struct Cell {
    uint64_t key = 0;
    Value value;
    bool full = false;
    mutable std::atomic<bool> used{false};
  };
  size_t FreeCell() {
    if (!free_.empty()) {
      const size_t at = free_.back();
      free_.pop_back();
      return at;
    }
    if (cells_.size() < most_) {
      cells_.emplace_back();
      return cells_.size() - 1;
    }
    while (cells_[hand_].used.exchange(false, std::memory_order_relaxed))
      hand_ = (hand_ + 1) % cells_.size();
    const size_t at = hand_;
    hand_ = (hand_ + 1) % cells_.size();
    where_.erase(cells_[at].key);
    Empty(at);
    return at;
  }
  void Empty(size_t at) {
    cells_[at].value = Value();
    cells_[at].full = false;
  }

  const size_t most_;
  absl::flat_hash_map<uint64_t, size_t> where_;
  std::deque<Cell> cells_;  // never move: Find hands out addresses to readers
  std::vector<size_t> free_;
  size_t hand_ = 0;
};

}  // namespace llmd::kv
