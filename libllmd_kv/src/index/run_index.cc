#include "index/run_index.h"

#include <algorithm>
#include <cstring>
#include <new>

namespace llmd::kv {
namespace {

constexpr size_t kSpareTail = 64;      // blocks that nobody holds at the end of a run: kept so many
constexpr size_t kRunsForgotten = 64;  // entries of a holder's list that may be out of date
constexpr size_t kSweepStep = 256;     // tables of engine keys looked through with one batch

uint64_t HolderKey(Holder holder, int32_t group) {
  return uint64_t{IndexOf(holder.endpoint)} << 40 |
         uint64_t{static_cast<uint8_t>(holder.tier)} << 32 | static_cast<uint32_t>(group);
}

size_t SameKeys(const uint64_t* a, const uint64_t* b, size_t count) {
  size_t i = 0;
  while (i < count && a[i] == b[i]) ++i;
  return i;
}

}  // namespace

RunIndex::RunIndex(RunIndexOptions options) : Index(options), options_(options) {}

RunIndex::~RunIndex() {
  for (Run& run : runs_) {
    epochs_.Free(run.view);
    epochs_.Free(run.keys);
  }
  for (auto& chunk : chunks_) delete[] chunk.load();
}

std::optional<uint32_t> RunIndex::FindHolder(Holder holder, int32_t group) const {
  const auto it = holder_numbers_.find(HolderKey(holder, group));
  if (it == holder_numbers_.end()) return std::nullopt;
  return it->second;
}

StatusOr<uint32_t> RunIndex::HolderOf(Holder holder, int32_t group) {
  if (const auto known = FindHolder(holder, group)) return *known;
  uint32_t number = static_cast<uint32_t>(holders_.size());
  if (!resting_.empty() && epochs_.Passed(resting_.front().second)) {
    number = resting_.front().first;
    resting_.pop_front();
  } else if (number == kChunk * kChunks) {
    return ResourceExhausted("index: endpoint '" + EndpointName(holder.endpoint) +
                             "': no more numbers for its tiers and groups");
  } else {
    holders_.emplace_back();
    auto& chunk = chunks_[number / kChunk];
    if (chunk.load(std::memory_order_relaxed) == nullptr)
      chunk.store(new HolderInfo[kChunk], std::memory_order_release);
  }
  chunks_[number / kChunk].load(std::memory_order_relaxed)[number % kChunk] = {holder.endpoint,
                                                                               holder.tier};
  const uint32_t endpoint = IndexOf(holder.endpoint);
  holders_[number] = {endpoint, holder.tier, group, 0, 0, {}};
  holder_numbers_.emplace(HolderKey(holder, group), number);
  if (endpoint >= holders_of_.size()) holders_of_.resize(endpoint + 1);
  holders_of_[endpoint].push_back(number);
  return number;
}

bool RunIndex::There(Place place) const {
  const Run& run = runs_[RunOf(place)];
  return run.keys != nullptr && OffsetOf(place) < run.length;
}

bool RunIndex::Held(Place place) const {
  const RunView* view = runs_[RunOf(place)].view;
  const uint32_t offset = OffsetOf(place);
  if (view == nullptr || offset >= view->length) return false;
  const RunSpan* span = std::upper_bound(view->begin(), view->end(), offset,
                                         [](uint32_t at, const RunSpan& s) { return at < s.end; });
  return span->set != nullptr;
}

uint32_t RunIndex::NewRun(uint16_t space, uint32_t parent) {
  uint32_t id = static_cast<uint32_t>(runs_.size());
  if (free_runs_.empty()) {
    LLMD_CHECK(id != kNoRun);
    runs_.emplace_back();
  } else {
    id = free_runs_.back();
    free_runs_.pop_back();
  }
  Run& run = runs_[id];
  run = {.life = run.life, .space = space};
  if (parent != kNoRun) {
    run.parent = parent;
    run.parent_life = runs_[parent].life;
    ++runs_[parent].children;
  }
  return id;
}

// Behind its last key; into a larger array when this one is full. Readers know no more of the array
// than their view's length.
void RunIndex::Append(uint32_t id, std::span<const uint64_t> keys) {
  Run& run = runs_[id];
  const auto more = static_cast<uint32_t>(keys.size());
  if (run.length + more > run.capacity) {
    const uint32_t grown = run.length == 0 ? 0 : run.length + run.length / 8 + 8;
    const uint32_t capacity = std::clamp(grown, run.length + more, std::max(kMaxRun, more));
    auto* bigger = static_cast<uint64_t*>(epochs_.Allocate(capacity * sizeof(uint64_t)));
    if (run.length != 0) std::memcpy(bigger, run.keys, run.length * sizeof(uint64_t));
    if (run.keys != nullptr) replaced_.push_back(run.keys);
    run.keys = bigger;
    run.capacity = capacity;
  }
  std::memcpy(run.keys + run.length, keys.data(), keys.size_bytes());
  run.length += more;
}

// How many keys, from the first, head no run: at least 1, for the first is known to head none.
size_t RunIndex::Fresh(uint16_t space, std::span<const uint64_t> keys, size_t room) const {
  const size_t most = std::min(keys.size(), room);
  size_t count = 1;
  while (count < most && heads_.Find(space, keys[count]) == nullptr) ++count;
  return count;
}

void RunIndex::LayAt(uint32_t run, uint32_t begin, uint32_t count, size_t first_key) {
  for (uint32_t i = 0; i < count; ++i) places_[first_key + i] = PlaceAt(run, begin + i);
  if (!intervals_.empty() && intervals_.back().run == run && intervals_.back().end == begin) {
    intervals_.back().end += count;
  } else {
    intervals_.push_back({run, begin, begin + count});
  }
}

// Finds a place for every key after `parent` (kMany: they begin a prompt): in the runs that have
// them, else behind the run that they continue, else in a run of their own.
void RunIndex::Lay(uint16_t space, std::span<const uint64_t> keys, Place parent) {
  places_.resize(keys.size());
  intervals_.clear();
  uint32_t run = parent == kMany ? kNoRun : RunOf(parent);
  uint32_t next = parent == kMany ? 0 : OffsetOf(parent) + 1;  // offset of the next key
  for (size_t at = 0; at < keys.size();) {
    if (run != kNoRun && next < runs_[run].length) {
      const size_t same = SameKeys(keys.data() + at, runs_[run].keys + next,
                                   std::min<size_t>(keys.size() - at, runs_[run].length - next));
      if (same > 0) {
        LayAt(run, next, static_cast<uint32_t>(same), at);
        next += static_cast<uint32_t>(same);
        at += same;
        continue;
      }
    }
    if (const RunView* view = heads_.Find(space, keys[at])) {
      run = view->run;
      next = 0;
      continue;
    }
    const bool open =
        run != kNoRun && next == runs_[run].length && !runs_[run].sealed && next < kMaxRun;
    if (!open) {
      run = NewRun(space, run);
      next = 0;
    }
    const size_t fresh = Fresh(space, keys.subspan(at), kMaxRun - next);
    Append(run, keys.subspan(at, fresh));
    LayAt(run, next, static_cast<uint32_t>(fresh), at);
    next += static_cast<uint32_t>(fresh);
    at += fresh;
  }
}

Status RunIndex::DoAdd(const StoredBlocks& blocks, Holder holder) {
  const Space space = directory().SpaceOf(blocks.ns);
  std::lock_guard lock(mutex_);
  Place parent = kMany;
  if (blocks.parent) {
    parent = LastHeld(EngineKey(blocks.ns, *blocks.parent));
    if (parent == kMany)
      return NotFound("index: nobody holds the parent, engine key " +
                      std::to_string(*blocks.parent));
  }
  LLMD_ASSIGN_OR_RETURN(const uint32_t number, HolderOf(holder, space.group));
  Lay(space.number, blocks.keys, parent);
  for (const Interval& at : intervals_) Change(at, number, true);
  TieAll(blocks.ns, blocks.engine_keys);
  if (stale_ > engines_.size() / 8 + 1024) SweepSome(kSweepStep);
  if (options_.max_bytes != 0) KeepBudget();
  return OkStatus();
}

void RunIndex::DoEvictChain(NamespaceId ns, std::span<const uint64_t> keys, size_t from,
                            Holder holder) {
  const Space space = directory().SpaceOf(ns);
  std::lock_guard lock(mutex_);
  const auto number = FindHolder(holder, space.group);
  if (!number) return;
  intervals_.clear();
  for (size_t at = 0; at < keys.size();) {
    const RunView* view = heads_.Find(space.number, keys[at]);
    if (view == nullptr) {  // nobody holds it; a run further on may still be there
      ++at;
      continue;
    }
    const Run& run = runs_[view->run];
    const size_t same =
        SameKeys(keys.data() + at, run.keys, std::min<size_t>(keys.size() - at, run.length));
    const size_t begin = from > at ? from - at : 0;
    if (begin < same)
      intervals_.push_back({view->run, static_cast<uint32_t>(begin), static_cast<uint32_t>(same)});
    at += same;
  }
  for (const Interval& at : intervals_) Change(at, *number, false);
}

void RunIndex::DoClear(EndpointId endpoint) {
  std::lock_guard lock(mutex_);
  const uint32_t index = IndexOf(endpoint);
  if (index >= holders_of_.size()) return;
  for (uint32_t holder : holders_of_[index]) {
    std::vector<uint32_t> runs;
    runs.swap(holders_[holder].runs);
    list_bytes_ -= runs.capacity() * sizeof(uint32_t);
    for (uint32_t run : runs)
      if (runs_[run].view != nullptr) Change({run, 0, runs_[run].length}, holder, false);
    LLMD_CHECK(holders_[holder].live_runs == 0 && holders_[holder].blocks == 0);
  }
  if (stale_ > engines_.size() / 8 + 1024) SweepSome(kSweepStep);
}

void RunIndex::DoForget(EndpointId endpoint) {
  std::lock_guard lock(mutex_);
  const uint32_t index = IndexOf(endpoint);
  if (index >= holders_of_.size()) return;
  const uint64_t mark = epochs_.Mark();
  for (uint32_t holder : holders_of_[index]) {
    const HolderState& state = holders_[holder];
    holder_numbers_.erase(HolderKey({endpoint, state.tier}, state.group));
    resting_.emplace_back(holder, mark);
  }
  holders_of_[index].clear();
}

// Adds the holder to the blocks, or takes it from them. Leaves the run's new spans in pieces_ until
// Publish has made a view of them.
void RunIndex::Change(const Interval& at, uint32_t holder, bool add) {
  const Run& run = runs_[at.run];
  pieces_.clear();
  uint32_t begin = 0;
  const auto emit = [&](uint32_t end, const HolderSet* set) {
    if (end <= begin) return;
    if (!pieces_.empty() && pieces_.back().set == set) {
      pieces_.back().end = end;
    } else {
      pieces_.push_back({end, set});
    }
    begin = end;
  };
  uint64_t changed = 0;
  bool had = false, has = false;
  const auto take = [&](uint32_t end, const HolderSet* set) {
    had = had || (set != nullptr && set->Has(holder));
    emit(std::min(end, at.begin), set);
    const uint32_t until = std::min(end, at.end);
    if (begin < until) {
      const HolderSet* next = add ? sets_.With(set, holder) : sets_.Without(set, holder);
      if (next != set) {
        changed += until - begin;
        if (set == nullptr) blocks_ += until - begin;
        if (next == nullptr) blocks_ -= until - begin;
      }
      emit(until, next);
    }
    emit(end, set);
  };
  if (run.view != nullptr)
    for (const RunSpan& span : *run.view) take(span.end, span.set);
  take(run.length, nullptr);
  if (changed == 0) return;
  for (const RunSpan& piece : pieces_)
    has = has || (piece.set != nullptr && piece.set->Has(holder));
  HolderState& state = holders_[holder];
  if (add) {
    state.blocks += changed;
    holder_blocks_ += changed;
  } else {
    state.blocks -= changed;
    holder_blocks_ -= changed;
  }
  if (!had && has) {
    list_bytes_ -= state.runs.capacity() * sizeof(uint32_t);
    state.runs.push_back(at.run);
    list_bytes_ += state.runs.capacity() * sizeof(uint32_t);
    ++state.live_runs;
  }
  if (had && !has) ForgetRun(holder);
  Publish(at.run, !add);
}

// The holder has nothing of the run any more; its list of runs may say so later.
void RunIndex::ForgetRun(uint32_t holder) {
  HolderState& state = holders_[holder];
  --state.live_runs;
  if (state.runs.size() < 2 * size_t{state.live_runs} + kRunsForgotten) return;
  std::ranges::sort(state.runs);
  state.runs.erase(std::unique(state.runs.begin(), state.runs.end()), state.runs.end());
  std::erase_if(state.runs, [&](uint32_t id) {
    const RunView* view = runs_[id].view;
    return view == nullptr || std::none_of(view->begin(), view->end(), [&](const RunSpan& s) {
             return s.set != nullptr && s.set->Has(holder);
           });
  });
}

// Makes pieces_ the run's spans.
void RunIndex::Publish(uint32_t id, bool may_cut) {
  Run& run = runs_[id];
  while (!pieces_.empty() && pieces_.back().set == nullptr) pieces_.pop_back();
  RunView* before = run.view;
  RunView* after = nullptr;
  if (!pieces_.empty()) {
    const uint32_t length = pieces_.back().end;
    if (may_cut && run.length - length >= std::max<size_t>(kSpareTail, run.length / 4))
      CutTail(run, length);
    const size_t size = sizeof(RunView) + pieces_.size() * sizeof(RunSpan);
    after = new (epochs_.Allocate(size))
        RunView{run.keys[0],
                run.keys,
                length,
                run.space,
                static_cast<uint16_t>(pieces_.size()),
                id,
                {before == nullptr ? 1 : before->used.load(std::memory_order_relaxed)}};
    std::ranges::copy(pieces_, after->begin());
    for (const RunSpan& piece : pieces_) sets_.Ref(piece.set);
  }
  run.view = after;
  if (before == nullptr) {
    heads_.Insert(after);
    ++live_runs_;
  } else if (after != nullptr) {
    heads_.Replace(before, after);
  } else {
    heads_.Erase(before);
  }
  if (after == nullptr) Die(id);
  if (before != nullptr) {
    for (const RunSpan& span : *before) sets_.Unref(span.set);
    epochs_.Retire(before);
  }
  for (void* memory : replaced_) epochs_.Retire(memory);
  replaced_.clear();
}

void RunIndex::CutTail(Run& run, uint32_t length) {
  auto* keys = static_cast<uint64_t*>(epochs_.Allocate(length * sizeof(uint64_t)));
  std::memcpy(keys, run.keys, length * sizeof(uint64_t));
  replaced_.push_back(run.keys);
  stale_ += std::min(run.engine_refs, run.length - length);
  run.keys = keys;
  run.length = run.capacity = length;
  run.sealed = true;
}

void RunIndex::Die(uint32_t id) {
  Run& run = runs_[id];
  --live_runs_;
  replaced_.push_back(run.keys);
  run.keys = nullptr;
  run.length = run.capacity = 0;
  stale_ += run.engine_refs;
  if (run.parent != kNoRun && runs_[run.parent].life == run.parent_life)
    --runs_[run.parent].children;
  run.parent = kNoRun;
  if (run.engine_refs == 0) FreeRun(id);
}

void RunIndex::FreeRun(uint32_t id) {
  ++runs_[id].life;
  runs_[id].children = 0;  // those that are left have lost it
  free_runs_.push_back(id);
}

size_t RunIndex::BlocksOf(EndpointId endpoint) const {
  std::lock_guard lock(mutex_);
  const uint32_t index = IndexOf(endpoint);
  size_t blocks = 0;
  if (endpoint == EndpointId::kNone || index >= holders_of_.size()) return 0;
  for (uint32_t holder : holders_of_[index]) blocks += holders_[holder].blocks;
  return blocks;
}

IndexStats RunIndex::Stats() const {
  std::lock_guard lock(mutex_);
  return {holder_blocks_, blocks_, Bytes(), live_runs_, evicted_};
}

std::unique_ptr<Index> MakeRunIndex(RunIndexOptions options) {
  return std::make_unique<RunIndex>(std::move(options));
}

}  // namespace llmd::kv
