// A hash map of bounded size, by entries and by bytes, that drops what was not used for a while
// (the clock algorithm: a hand passes over the entries and takes the first that nobody touched
// since its last round, or since it came).
#pragma once

#include <absl/container/flat_hash_map.h>

#include <atomic>
#include <cstdint>
#include <deque>
#include <utility>
#include <vector>

namespace llmd::kv {

// What a map holds at most.
struct ClockBounds {
  size_t entries = SIZE_MAX;
  size_t bytes = SIZE_MAX;
};

// Readers may run beside each other (Find marks an entry as used); writers alone. `gone(value)` is
// called for what the bounds drop.
template <typename Value>
class ClockMap {
 public:
  // Of an entry without what its value has on the heap: key, place, cell.
  static constexpr size_t kEntryBytes = 2 * sizeof(uint64_t) + sizeof(Value) + 24;

  explicit ClockMap(ClockBounds most) : most_(most) {}

  Value* Find(uint64_t key) {
    const auto it = where_.find(key);
    if (it == where_.end()) return nullptr;
    Cell& cell = cells_[it->second];
    cell.used.store(true, std::memory_order_relaxed);
    return &cell.value;
  }
  const Value* Find(uint64_t key) const { return const_cast<ClockMap*>(this)->Find(key); }
  // The value, made when absent, in place of another when the map is full.
  template <typename Gone>
  Value& At(uint64_t key, Gone gone) {
    if (Value* found = Find(key)) return *found;
    if (where_.size() >= most_.entries) DropOne(gone);
    size_t at = cells_.size();
    if (free_.empty()) {
      cells_.emplace_back();
    } else {
      at = free_.back();
      free_.pop_back();
    }
    Cell& cell = cells_[at];
    cell.key = key;
    cell.full = true;
    cell.used.store(false, std::memory_order_relaxed);
    where_.emplace(key, at);
    bytes_ += kEntryBytes;
    return cell.value;
  }
  // The value at `key` takes `more` bytes of heap more than before; others go when that is too
  // much.
  template <typename Gone>
  void Charge(uint64_t key, ptrdiff_t more, Gone gone) {
    Cell& cell = cells_[where_.find(key)->second];
    cell.bytes += static_cast<size_t>(more);
    bytes_ += static_cast<size_t>(more);
    while (bytes_ > most_.bytes && where_.size() > 1) DropOne(gone);
  }
  void Erase(uint64_t key) {
    const auto it = where_.find(key);
    if (it != where_.end()) Empty(it->second);
  }
  // Calls each(key, value); entries for which it returns true go.
  template <typename Each>
  void EraseIf(Each each) {
    for (size_t i = 0; i < cells_.size(); ++i)
      if (cells_[i].full && each(cells_[i].key, cells_[i].value)) Empty(i);
  }
  size_t size() const { return where_.size(); }
  size_t bytes() const { return bytes_; }

 private:
  struct Cell {
    uint64_t key = 0;
    Value value;
    size_t bytes = 0;
    bool full = false;
    mutable std::atomic<bool> used{false};
  };
  template <typename Gone>
  void DropOne(Gone gone) {
    while (!cells_[hand_].full || cells_[hand_].used.exchange(false, std::memory_order_relaxed))
      hand_ = (hand_ + 1) % cells_.size();
    gone(cells_[hand_].value);
    Empty(hand_);
    hand_ = (hand_ + 1) % cells_.size();
  }
  void Empty(size_t at) {
    Cell& cell = cells_[at];
    where_.erase(cell.key);
    bytes_ -= kEntryBytes + cell.bytes;
    cell.value = Value();
    cell.bytes = 0;
    cell.full = false;
    free_.push_back(at);
  }

  const ClockBounds most_;
  absl::flat_hash_map<uint64_t, size_t> where_;
  std::deque<Cell> cells_;  // never move: Find hands out addresses to readers
  std::vector<size_t> free_;
  size_t hand_ = 0;
  size_t bytes_ = 0;
};

}  // namespace llmd::kv
