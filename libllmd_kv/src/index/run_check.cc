// What must always hold of a run index (run_index.h names the invariants).
#include <absl/container/flat_hash_set.h>

#include "index/run_index.h"

namespace llmd::kv {
namespace {

Status Broken(std::string_view what, uint32_t run) {
  return Internal("run index: run " + std::to_string(run) + ": " + std::string(what));
}

}  // namespace

Status RunIndex::CheckRun(uint32_t id) const {
  const Run& run = runs_[id];
  if (run.view == nullptr) {
    if (run.keys != nullptr || run.length != 0) return Broken("keys that nobody holds", id);
    return OkStatus();
  }
  const RunView& view = *run.view;
  if (view.run != id || view.keys != run.keys || view.space != run.space ||
      view.head != run.keys[0] || view.length > run.length || run.length > run.capacity ||
      run.length > kMaxRun)
    return Broken("its view is of another", id);
  if (heads_.Find(run.space, view.head) != &view) return Broken("its head is not in the table", id);
  uint32_t begin = 0;
  const HolderSet* last = nullptr;
  for (const RunSpan& span : view) {
    if (span.end <= begin || (begin != 0 && span.set == last))
      return Broken("I3: spans are not sorted, empty or not as long as they can be", id);
    if (span.set != nullptr && (span.set->refs == 0 || span.set->count == 0))
      return Broken("a set without references or members", id);
    begin = span.end;
    last = span.set;
  }
  if (last == nullptr || begin != view.length) return Broken("I4: ends with a hole", id);
  return OkStatus();
}

Status RunIndex::CheckInvariants() const {
  std::lock_guard lock(mutex_);
  absl::flat_hash_set<std::pair<uint16_t, uint64_t>> keys;
  absl::flat_hash_map<uint32_t, size_t> blocks, runs, children;
  size_t held = 0, live = 0;
  for (uint32_t id = 0; id < runs_.size(); ++id) {
    LLMD_RETURN_IF_ERROR(CheckRun(id));
    const Run& run = runs_[id];
    if (run.parent != kNoRun && runs_[run.parent].life == run.parent_life) ++children[run.parent];
    for (uint32_t i = 0; i < run.length; ++i)
      if (!keys.emplace(run.space, run.keys[i]).second)
        return Broken("I2: a key that stands elsewhere too, at " + std::to_string(i), id);
    if (run.view == nullptr) continue;
    ++live;
    absl::flat_hash_set<uint32_t> holders;
    uint32_t begin = 0;
    for (const RunSpan& span : *run.view) {
      if (span.set != nullptr) {
        held += span.end - begin;
        span.set->ForEach([&](uint32_t holder) {
          blocks[holder] += span.end - begin;
          holders.insert(holder);
        });
      }
      begin = span.end;
    }
    for (uint32_t holder : holders) ++runs[holder];
  }
  size_t holder_blocks = 0;
  for (uint32_t holder = 0; holder < holders_.size(); ++holder) {
    holder_blocks += blocks[holder];
    if (holders_[holder].blocks != blocks[holder] || holders_[holder].live_runs != runs[holder])
      return Internal("run index: holder " + std::to_string(holder) + " is counted wrongly");
  }
  for (uint32_t id = 0; id < runs_.size(); ++id)
    if (runs_[id].children != children[id]) return Broken("its children are counted wrongly", id);
  if (held != blocks_ || holder_blocks != holder_blocks_ || live != live_runs_)
    return Internal("run index: its totals are wrong");
  return OkStatus();
}

}  // namespace llmd::kv
