// Where a hash lives in an open-addressing table of any size, so that tables can grow by less than
// doubling. Homes keep the order of the hashes' low halves: a table is copied into a larger one
// front to back, without jumping.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace llmd::sched {

// In [0, size) for a `size` below 2^32.
inline size_t HashHome(uint32_t low_half, size_t size) {
  return (low_half * size) >> 32;
}

// Cells of the next larger table, 0 included.
inline size_t GrownHashTable(size_t size) {
  return std::max<size_t>(16, size + size * 2 / 5);
}

// With linear probing, whether the entry of cell `at` (home `home`) may move back to `hole`: unless
// its home lies behind the hole, seen along the circle.
inline bool MayFill(size_t hole, size_t home, size_t at) {
  return hole <= at ? home <= hole || home > at : home <= hole && home > at;
}

}  // namespace llmd::sched
