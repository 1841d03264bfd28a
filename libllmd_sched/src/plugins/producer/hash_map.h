// An open-addressing map from 64-bit hashes (already well mixed) to 64-bit words. Linear probing,
// backward-shift deletion, load between 5/8 and 7/8: 18 to 26 bytes an entry. Key 0 is stored
// beside the table. Thread-compatible.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "plugins/producer/hash_home.h"

namespace llmd::sched {

class HashMap {
 public:
  // The value, or null pointer.
  uint64_t* Find(uint64_t key) { return const_cast<uint64_t*>(std::as_const(*this).Find(key)); }
  const uint64_t* Find(uint64_t key) const {
    if (key == 0) return has_zero_ ? &zero_ : nullptr;
    if (size_ == 0) return nullptr;
    for (size_t i = Home(key);; i = Next(i)) {
      if (cells_[i].key == key) return &cells_[i].value;
      if (cells_[i].key == 0) return nullptr;
    }
  }
  // The value, made 0 when absent. Pointers to values die with the next call that is not const.
  uint64_t& At(uint64_t key) {
    if (key == 0) {
      if (!std::exchange(has_zero_, true)) zero_ = 0;
      return zero_;
    }
    if (uint64_t* found = Find(key)) return *found;
    if ((size_ + 1) * 8 > cells_.size() * 7) Grow();
    ++size_;
    return Place(key, 0);
  }
  void Erase(uint64_t key) {
    if (key == 0) {
      has_zero_ = false;
      return;
    }
    if (uint64_t* found = Find(key)) EraseFound(found);
  }
  // Erases the entry that Find gave.
  void EraseFound(const uint64_t* found) {
    if (found == &zero_) {
      has_zero_ = false;
      return;
    }
    size_t hole = static_cast<size_t>(reinterpret_cast<const char*>(found) -
                                      reinterpret_cast<const char*>(cells_.data())) /
                  sizeof(Cell);
    for (size_t i = Next(hole); cells_[i].key != 0; i = Next(i)) {
      if (!MayFill(hole, Home(cells_[i].key), i)) continue;
      cells_[hole] = cells_[i];
      hole = i;
    }
    cells_[hole] = {};
    --size_;
  }
  size_t size() const { return size_ + has_zero_; }
  // Brings the key's place nearer, for a call that follows soon.
  void Prefetch(uint64_t key) const {
    if (!cells_.empty()) __builtin_prefetch(&cells_[Home(key)]);
  }

 private:
  struct Cell {
    uint64_t key = 0, value = 0;
  };
  uint64_t& Place(uint64_t key, uint64_t value) {
    size_t i = Home(key);
    while (cells_[i].key != 0) i = Next(i);
    cells_[i] = {key, value};
    return cells_[i].value;
  }
  size_t Home(uint64_t key) const { return HashHome(static_cast<uint32_t>(key), cells_.size()); }
  size_t Next(size_t i) const { return i + 1 == cells_.size() ? 0 : i + 1; }
  void Grow() {
    const std::vector<Cell> old =
        std::exchange(cells_, std::vector<Cell>(GrownHashTable(cells_.size())));
    for (const Cell& cell : old) {
      if (cell.key != 0) Place(cell.key, cell.value);
    }
  }
  std::vector<Cell> cells_;
  size_t size_ = 0;
  uint64_t zero_ = 0;
  bool has_zero_ = false;
};

}  // namespace llmd::sched
