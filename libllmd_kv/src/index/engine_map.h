// From the keys of engines to blocks: 12 bytes a slot. The key is spread one to one over 64 bits;
// 16 of them choose one of 65,536 small tables, the other 48 stand in the slot beside the 48-bit
// value, so that the whole key is compared. Tables grow one at a time, by a quarter.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>

#include "index/epochs.h"

namespace llmd::kv {

// Belongs to the index's writer.
class EngineMap {
 public:
  static constexpr uint64_t kMaxValue = (uint64_t{1} << 48) - 2;

  explicit EngineMap(Epochs& epochs) : epochs_(epochs), tables_(new Table[kTables]()) {}
  ~EngineMap() {
    for (size_t i = 0; i < kTables; ++i) epochs_.Free(tables_[i].slots);
  }

  // `key` is spread already (Mix).
  std::optional<uint64_t> Find(uint64_t key) const {
    const Table& table = tables_[key >> 48];
    const size_t at = Look(table, key);
    if (at == kNone) return std::nullopt;
    return ValueOf(table.slots[at]);
  }
  // The value under the key; `value` when there was none, which is then put there.
  uint64_t FindOrPut(uint64_t key, uint64_t value);
  void Set(uint64_t key, uint64_t value);  // which is there
  void Erase(uint64_t key);                // nothing when it is not
  void PrefetchTable(uint64_t key) const { __builtin_prefetch(&tables_[key >> 48]); }
  void PrefetchSlot(uint64_t key) const {
    const Table& table = tables_[key >> 48];
    if (table.capacity != 0) __builtin_prefetch(&table.slots[Home(table, key)]);
  }
  // Goes through the tables [from, to): keep(key, value&) false drops the entry; it may change the
  // value. Tables less than half full afterwards shrink.
  template <typename Keep>
  void Sweep(size_t from, size_t to, Keep keep);
  template <typename Each>
  void ForEach(Each each) const {
    for (size_t t = 0; t < kTables; ++t)
      for (size_t i = 0; i < tables_[t].capacity; ++i)
        if (const uint64_t value = ValueOf(tables_[t].slots[i]); value != kEmpty)
          each(uint64_t{t} << 48 | RestOf(tables_[t].slots[i]), value);
  }
  size_t size() const { return size_; }
  static constexpr size_t kTables = size_t{1} << 16;

 private:
  struct Slot {
    uint32_t low;   // of the key
    uint16_t high;  // of the key
    uint16_t value_high;
    uint32_t value_low;
  };
  static_assert(sizeof(Slot) == 12);
  struct Table {
    Slot* slots;
    uint16_t count, capacity;
  };
  static constexpr size_t kNone = SIZE_MAX;
  static constexpr uint64_t kEmpty = (uint64_t{1} << 48) - 1;

  static uint64_t ValueOf(const Slot& s) { return uint64_t{s.value_high} << 32 | s.value_low; }
  static uint64_t RestOf(const Slot& s) { return uint64_t{s.high} << 32 | s.low; }
  static void SetValue(Slot& s, uint64_t value) {
    s.value_high = static_cast<uint16_t>(value >> 32);
    s.value_low = static_cast<uint32_t>(value);
  }
  static size_t HomeOfRest(const Table& table, uint64_t rest) {
    return static_cast<size_t>(rest * table.capacity >> 48);
  }
  static size_t Home(const Table& table, uint64_t key) {
    return HomeOfRest(table, key & 0xffffffffffff);
  }
  static size_t Look(const Table& table, uint64_t key) {
    if (table.count == 0) return kNone;
    const auto low = static_cast<uint32_t>(key);
    const auto high = static_cast<uint16_t>(key >> 32);
    for (size_t i = Home(table, key);; i = i + 1 == table.capacity ? 0 : i + 1) {
      const Slot& slot = table.slots[i];
      if (ValueOf(slot) == kEmpty) return kNone;
      if (slot.low == low && slot.high == high) return i;
    }
  }
  void Resize(Table& table, size_t capacity);
  static void Put(Table& table, uint64_t rest, uint64_t value);
  static void Remove(Table& table, size_t at);

  Epochs& epochs_;
  const std::unique_ptr<Table[]> tables_;
  size_t size_ = 0;
};

template <typename Keep>
void EngineMap::Sweep(size_t from, size_t to, Keep keep) {
  for (size_t t = from; t < to; ++t) {
    Table& table = tables_[t];
    for (size_t i = 0; i < table.capacity;) {
      Slot& slot = table.slots[i];
      uint64_t value = ValueOf(slot);
      if (value == kEmpty || keep(uint64_t{t} << 48 | RestOf(slot), value)) {
        if (value != kEmpty) SetValue(slot, value);
        ++i;
        continue;
      }
      Remove(table, i);  // what moved into its place comes next
      --size_;
    }
    if (table.count * 2 < table.capacity) Resize(table, table.count == 0 ? 0 : table.count * size_t{5} / 4 + 1);
  }
}

}  // namespace llmd::kv
