#include "index/engine_map.h"

#include <algorithm>

namespace llmd::kv {
namespace {

constexpr size_t kLeast = 4, kMost = UINT16_MAX;

}  // namespace

void EngineMap::Put(Table& table, uint64_t rest, uint64_t value) {
  size_t i = HomeOfRest(table, rest);
  while (ValueOf(table.slots[i]) != kEmpty) i = i + 1 == table.capacity ? 0 : i + 1;
  Slot& slot = table.slots[i];
  slot.low = static_cast<uint32_t>(rest);
  slot.high = static_cast<uint16_t>(rest >> 32);
  SetValue(slot, value);
  ++table.count;
}

void EngineMap::Resize(Table& table, size_t capacity) {
  Table after{nullptr, 0, static_cast<uint16_t>(std::max(capacity, kLeast))};
  if (capacity == 0) {
    after.capacity = 0;
  } else {
    after.slots = static_cast<Slot*>(epochs_.Allocate(after.capacity * sizeof(Slot)));
    std::memset(after.slots, 0xff, after.capacity * sizeof(Slot));
    for (size_t i = 0; i < table.capacity; ++i)
      if (const uint64_t value = ValueOf(table.slots[i]); value != kEmpty)
        Put(after, RestOf(table.slots[i]), value);
  }
  epochs_.Free(table.slots);  // no reader looks here
  table = after;
}

// What stands behind it in its chain moves up, so that no mark has to stay.
void EngineMap::Remove(Table& table, size_t at) {
  const size_t capacity = table.capacity;
  size_t hole = at;
  for (size_t i = hole + 1 == capacity ? 0 : hole + 1; ValueOf(table.slots[i]) != kEmpty;
       i = i + 1 == capacity ? 0 : i + 1) {
    const size_t home = HomeOfRest(table, RestOf(table.slots[i]));
    const size_t from_home = i >= home ? i - home : i + capacity - home;
    const size_t from_hole = i >= hole ? i - hole : i + capacity - hole;
    if (from_home < from_hole) continue;
    table.slots[hole] = table.slots[i];
    hole = i;
  }
  SetValue(table.slots[hole], kEmpty);
  --table.count;
}

uint64_t EngineMap::FindOrPut(uint64_t key, uint64_t value) {
  Table& table = tables_[key >> 48];
  if (const size_t at = Look(table, key); at != kNone) return ValueOf(table.slots[at]);
  // At most 7/8 full, so that a search ends.
  if ((table.count + size_t{1}) * 8 > table.capacity * size_t{7}) {
    const size_t more = table.capacity + table.capacity / 4 + 2;
    LLMD_CHECK(table.count < kMost - 2);
    Resize(table, std::min(more, kMost));
  }
  Put(table, key & 0xffffffffffff, value);
  ++size_;
  return value;
}

void EngineMap::Set(uint64_t key, uint64_t value) {
  Table& table = tables_[key >> 48];
  SetValue(table.slots[Look(table, key)], value);
}

void EngineMap::Erase(uint64_t key) {
  Table& table = tables_[key >> 48];
  const size_t at = Look(table, key);
  if (at == kNone) return;
  Remove(table, at);
  --size_;
}

}  // namespace llmd::kv
