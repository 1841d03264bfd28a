#include "index/head_table.h"

#include <new>

namespace llmd::kv {

HeadTable::~HeadTable() {
  for (Shard& shard : shards_) epochs_.Free(shard.table.load());
}

void HeadTable::Put(Table& table, const RunView* view, uint64_t hash) {
  size_t i = hash & table.mask;
  while (table.slots()[i].load(std::memory_order_relaxed) != kEmpty) i = (i + 1) & table.mask;
  table.slots()[i].store(SlotOf(view, hash), std::memory_order_seq_cst);
}

// Into a table without gone slots, at most half full.
void HeadTable::Grow(Shard& shard) {
  Table* before = shard.table.load();
  size_t count = 8;
  while (count < 2 * (shard.views + 1)) count *= 2;
  auto* after =
      static_cast<Table*>(epochs_.Allocate(sizeof(Table) + count * sizeof(std::atomic<uint64_t>)));
  after->mask = count - 1;
  for (size_t i = 0; i < count; ++i) new (&after->slots()[i]) std::atomic<uint64_t>(kEmpty);
  for (size_t i = 0; before != nullptr && i <= before->mask; ++i) {
    const uint64_t slot = before->slots()[i].load(std::memory_order_relaxed);
    if (slot == kEmpty || slot == kGone) continue;
    const RunView* view = ViewOf(slot);
    Put(*after, view, HashOf(view->space, view->head));
  }
  shard.full = shard.views;
  shard.table.store(after, std::memory_order_seq_cst);
  epochs_.Retire(before);
}

void HeadTable::Insert(const RunView* view) {
  const uint64_t hash = HashOf(view->space, view->head);
  Shard& shard = shards_[hash >> 56];
  const Table* table = shard.table.load(std::memory_order_relaxed);
  if (table == nullptr || (shard.full + 1) * 4 > (table->mask + 1) * 3) Grow(shard);
  Put(*shard.table.load(std::memory_order_relaxed), view, hash);
  ++shard.full;
  ++shard.views;
}

std::atomic<uint64_t>& HeadTable::Place(const RunView* view, uint64_t hash) {
  Table& table = *shards_[hash >> 56].table.load(std::memory_order_relaxed);
  const uint64_t slot = SlotOf(view, hash);
  size_t i = hash & table.mask;
  while (table.slots()[i].load(std::memory_order_relaxed) != slot) i = (i + 1) & table.mask;
  return table.slots()[i];
}

void HeadTable::Replace(const RunView* before, const RunView* after) {
  const uint64_t hash = HashOf(after->space, after->head);
  Place(before, hash).store(SlotOf(after, hash), std::memory_order_seq_cst);
}

void HeadTable::Erase(const RunView* view) {
  const uint64_t hash = HashOf(view->space, view->head);
  Place(view, hash).store(kGone, std::memory_order_seq_cst);
  --shards_[hash >> 56].views;
}

}  // namespace llmd::kv
