// From the first key of a run to its view: open addressing in 256 shards that grow one at a time. A
// slot is one word, the view's address and 16 bits of the key's hash, so that readers need no lock.
#pragma once

#include <array>
#include <atomic>

#include "index/mix.h"
#include "index/run_view.h"

namespace llmd::kv {

// Find is for readers that hold a pin and for the writer; all else is the writer's.
class HeadTable {
 public:
  explicit HeadTable(Epochs& epochs) : epochs_(epochs) {}
  ~HeadTable();

  static uint64_t HashOf(uint16_t space, uint64_t key) {
    return Mix(key + space * 0xd6e8feb86659fd93u);
  }
  const RunView* Find(uint16_t space, uint64_t key) const {
    const uint64_t hash = HashOf(space, key);
    const Table* table = shards_[hash >> 56].table.load(std::memory_order_acquire);
    if (table == nullptr) return nullptr;
    for (size_t i = hash & table->mask;; i = (i + 1) & table->mask) {
      const uint64_t slot = table->slots()[i].load(std::memory_order_seq_cst);
      if (slot == kEmpty) return nullptr;
      if (slot >> 48 != TagOf(hash) || slot == kGone) continue;
      const RunView* view = ViewOf(slot);
      if (view->head == key && view->space == space) return view;
    }
  }
  void Prefetch(uint64_t hash) const {
    const Table* table = shards_[hash >> 56].table.load(std::memory_order_relaxed);
    if (table != nullptr) __builtin_prefetch(&table->slots()[hash & table->mask]);
  }
  void Insert(const RunView* view);
  void Replace(const RunView* before, const RunView* after);  // of the same head
  void Erase(const RunView* view);

 private:
  static constexpr uint64_t kEmpty = 0, kGone = 1;
  struct Table {
    size_t mask;
    std::atomic<uint64_t>* slots() { return reinterpret_cast<std::atomic<uint64_t>*>(this + 1); }
    const std::atomic<uint64_t>* slots() const {
      return reinterpret_cast<const std::atomic<uint64_t>*>(this + 1);
    }
  };
  struct Shard {
    std::atomic<Table*> table{nullptr};
    size_t full = 0;  // slots that are not empty, gone ones included
    size_t views = 0;
  };
  static uint64_t TagOf(uint64_t hash) { return hash >> 40 & 0xffff; }
  static const RunView* ViewOf(uint64_t slot) {
    return reinterpret_cast<const RunView*>(slot & 0xffffffffffff);
  }
  static uint64_t SlotOf(const RunView* view, uint64_t hash) {
    const auto address = reinterpret_cast<uint64_t>(view);
    LLMD_CHECK(address >> 48 == 0);
    return address | TagOf(hash) << 48;
  }
  std::atomic<uint64_t>& Place(const RunView* view, uint64_t hash);
  void Grow(Shard& shard);
  static void Put(Table& table, const RunView* view, uint64_t hash);

  Epochs& epochs_;
  std::array<Shard, 256> shards_;
};

}  // namespace llmd::kv
