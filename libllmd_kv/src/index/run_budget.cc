// The byte budget of a run index: the ends of prompts go first, those that nobody asked for before
// others (the clock algorithm over runs that no other run continues).
#include <algorithm>

#include "index/run_index.h"

namespace llmd::kv {
namespace {

constexpr size_t kLeastBudget = size_t{4} << 20;  // an empty index is a third of it
constexpr uint32_t kEvictBlocks = 256;            // of a run at a time
constexpr size_t kEngineKeyBytes = 14;            // about, with what a table has free

}  // namespace

size_t RunIndex::Bytes() const {
  return epochs_.bytes() + runs_.size() * sizeof(Run) + free_runs_.capacity() * sizeof(uint32_t) +
         EngineMap::kTables * 16 + sets_.bytes() + lists_.capacity() * sizeof(lists_[0]) +
         list_bytes_ + holders_.size() * (sizeof(HolderState) + sizeof(HolderInfo));
}

void RunIndex::KeepBudget() {
  const size_t most = std::max(options_.max_bytes, kLeastBudget);
  if (Bytes() <= most) return;
  // A sixteenth at a time, so that the sweep of engine keys is rare.
  const size_t goal = most - most / 16;
  for (int round = 0; round < 4 && Bytes() > goal; ++round) {
    while (Bytes() > goal + std::min(stale_, engines_.size()) * kEngineKeyBytes && EvictOne()) {
    }
    SweepSome(EngineMap::kTables);
    if (swept_ != 0) SweepSome(EngineMap::kTables);
    epochs_.Collect();
  }
}

// False: there is nothing to take.
bool RunIndex::EvictOne() {
  for (size_t tries = 0; tries < 3 * runs_.size(); ++tries) {
    hand_ = hand_ + 1 < runs_.size() ? hand_ + 1 : 0;
    const Run& run = runs_[hand_];
    if (run.view == nullptr || run.children != 0) continue;
    if (run.view->used.exchange(0, std::memory_order_relaxed) != 0) continue;
    const uint32_t length = run.view->length;
    DropTail(static_cast<uint32_t>(hand_), length <= kEvictBlocks ? 0 : length - kEvictBlocks);
    return true;
  }
  return false;
}

// Nobody holds the blocks from `from` on any more, and their keys go.
void RunIndex::DropTail(uint32_t id, uint32_t from) {
  pieces_.clear();
  std::vector<uint32_t> lost;
  uint32_t begin = 0;
  for (const RunSpan& span : *runs_[id].view) {
    if (begin < from) pieces_.push_back({std::min(span.end, from), span.set});
    const uint32_t gone = span.end - std::min(span.end, std::max(begin, from));
    begin = span.end;
    if (gone == 0 || span.set == nullptr) continue;
    blocks_ -= gone;
    holder_blocks_ -= size_t{gone} * span.set->count;
    evicted_ += size_t{gone} * span.set->count;
    span.set->ForEach([&](uint32_t holder) {
      holders_[holder].blocks -= gone;
      lost.push_back(holder);
    });
  }
  std::ranges::sort(lost);
  lost.erase(std::unique(lost.begin(), lost.end()), lost.end());
  std::erase_if(lost, [&](uint32_t holder) {
    return std::ranges::any_of(pieces_, [&](const RunSpan& piece) {
      return piece.set != nullptr && piece.set->Has(holder);
    });
  });
  while (!pieces_.empty() && pieces_.back().set == nullptr) pieces_.pop_back();
  if (!pieces_.empty()) CutTail(runs_[id], pieces_.back().end);
  Publish(id, false);
  for (uint32_t holder : lost) ForgetRun(holder);
}

}  // namespace llmd::kv
