// Which blocks the keys of engines name. Most name one; a key that names several has a list.
#include <algorithm>
#include <utility>

#include "index/run_index.h"

namespace llmd::kv {
namespace {

constexpr size_t kAhead = 32;
constexpr size_t kMaxList = 4096;  // blocks of one engine key; the oldest goes

}  // namespace

void RunIndex::TieAll(NamespaceId ns, std::span<const uint64_t> engine_keys) {
  if (engine_keys.empty()) return;
  if (engine_keys.size() != places_.size()) {
    const size_t n = std::max(engine_keys.size(), places_.size());
    for (size_t i = 0; i < n; ++i)
      Tie(EngineKey(ns, engine_keys[i * engine_keys.size() / n]), places_[i * places_.size() / n]);
    return;
  }
  uint64_t ahead[kAhead];
  for (size_t at = 0; at < engine_keys.size(); at += kAhead) {
    const size_t count = std::min(kAhead, engine_keys.size() - at);
    for (size_t i = 0; i < count; ++i) {
      ahead[i] = EngineKey(ns, engine_keys[at + i]);
      engines_.PrefetchTable(ahead[i]);
    }
    for (size_t i = 0; i < count; ++i) engines_.PrefetchSlot(ahead[i]);
    for (size_t i = 0; i < count; ++i) Tie(ahead[i], places_[at + i]);
  }
}

void RunIndex::Tie(uint64_t engine_key, Place place) {
  const size_t before = engines_.size();
  const Place known = engines_.FindOrPut(engine_key, place);
  if (engines_.size() != before) {
    ++runs_[RunOf(place)].engine_refs;
    return;
  }
  if (known == place) return;
  if ((known & kMany) == 0 && !There(known)) {
    ++runs_[RunOf(place)].engine_refs;
    engines_.Set(engine_key, place);
    DropRef(known);
    return;
  }
  if ((known & kMany) == 0) {
    uint32_t list = static_cast<uint32_t>(lists_.size());
    if (free_lists_.empty()) {
      lists_.emplace_back();
    } else {
      list = free_lists_.back();
      free_lists_.pop_back();
    }
    lists_[list] = {known, place};
    list_bytes_ += lists_[list].capacity() * sizeof(Place);
    engines_.Set(engine_key, kMany | list);
    ++runs_[RunOf(place)].engine_refs;
    return;
  }
  std::vector<Place>& list = lists_[known & ~kMany];
  ++runs_[RunOf(place)].engine_refs;
  if (const auto it = std::ranges::find(list, place); it != list.end()) {
    list.erase(it);
    DropRef(place);
  } else if (list.size() == kMaxList) {
    DropRef(list.front());
    list.erase(list.begin());
  }
  list_bytes_ -= list.capacity() * sizeof(Place);
  list.push_back(place);
  list_bytes_ += list.capacity() * sizeof(Place);
}

// An engine key ceased to name the block.
void RunIndex::DropRef(Place place) {
  Run& run = runs_[RunOf(place)];
  if (!There(place) && stale_ > 0) --stale_;
  if (--run.engine_refs == 0 && run.keys == nullptr) FreeRun(RunOf(place));
}

// kMany: nobody holds a block that it names.
RunIndex::Place RunIndex::LastHeld(uint64_t engine_key) const {
  const auto named = engines_.Find(engine_key);
  if (!named) return kMany;
  if ((*named & kMany) == 0) return Held(*named) ? *named : kMany;
  const std::vector<Place>& list = lists_[*named & ~kMany];
  for (auto it = list.rbegin(); it != list.rend(); ++it)
    if (Held(*it)) return *it;
  return kMany;
}

std::optional<uint64_t> RunIndex::RequestKeyOf(NamespaceId ns, uint64_t engine_key) const {
  std::lock_guard lock(mutex_);
  const Place place = LastHeld(EngineKey(ns, engine_key));
  if (place == kMany) return std::nullopt;
  return runs_[RunOf(place)].keys[OffsetOf(place)];
}

void RunIndex::DoEvict(NamespaceId ns, std::span<const uint64_t> engine_keys, Holder holder) {
  const Space space = directory().SpaceOf(ns);
  std::lock_guard lock(mutex_);
  const auto number = FindHolder(holder, space.group);
  if (!number) return;
  Interval at{kNoRun, 0, 0};
  pending_keys_.clear();
  for (size_t i = 0; i < engine_keys.size(); ++i) {
    if (i % kAhead == 0) {
      for (size_t j = i; j < std::min(i + kAhead, engine_keys.size()); ++j)
        engines_.PrefetchTable(EngineKey(ns, engine_keys[j]));
      for (size_t j = i; j < std::min(i + kAhead, engine_keys.size()); ++j)
        engines_.PrefetchSlot(EngineKey(ns, engine_keys[j]));
    }
    const uint64_t key = EngineKey(ns, engine_keys[i]);
    const auto named = engines_.Find(key);
    if (!named) continue;
    if ((*named & kMany) != 0) {
      FlushEvicted(at, *number);
      at.run = kNoRun;
      EvictMany(key, *named, *number);
      continue;
    }
    if (!There(*named)) {
      engines_.Erase(key);
      DropRef(*named);
      continue;
    }
    const uint32_t offset = OffsetOf(*named);
    if (RunOf(*named) == at.run && offset == at.end) {
      ++at.end;
    } else if (RunOf(*named) == at.run && offset + 1 == at.begin) {
      --at.begin;
    } else {
      FlushEvicted(at, *number);
      at = {RunOf(*named), offset, offset + 1};
    }
    pending_keys_.push_back(key);
  }
  FlushEvicted(at, *number);
}

// Takes the holder from the blocks that pending_keys_ name; engine keys whose block nobody holds
// any more go.
void RunIndex::FlushEvicted(const Interval& at, uint32_t holder) {
  if (pending_keys_.empty()) return;
  Change(at, holder, false);
  for (uint64_t key : pending_keys_) {
    const auto named = engines_.Find(key);
    if (!named || Held(*named)) continue;
    engines_.Erase(key);
    DropRef(*named);
  }
  pending_keys_.clear();
}

void RunIndex::EvictMany(uint64_t engine_key, Place many, uint32_t holder) {
  std::vector<Place>& list = lists_[many & ~kMany];
  for (Place place : list)
    if (There(place)) Change({RunOf(place), OffsetOf(place), OffsetOf(place) + 1}, holder, false);
  if (std::ranges::any_of(list, [this](Place place) { return Held(place); })) return;
  for (Place place : list) DropRef(place);
  list_bytes_ -= list.capacity() * sizeof(Place);
  std::vector<Place>().swap(list);
  free_lists_.push_back(static_cast<uint32_t>(many & ~kMany));
  engines_.Erase(engine_key);
}

// False: it names nothing that is still there.
bool RunIndex::KeepEngineKey(uint64_t& value) {
  if ((value & kMany) == 0) {
    if (There(value)) return true;
    DropRef(value);
    return false;
  }
  std::vector<Place>& list = lists_[value & ~kMany];
  std::erase_if(list, [this](Place place) {
    if (There(place)) return false;
    DropRef(place);
    return true;
  });
  if (list.size() > 1) return true;
  free_lists_.push_back(static_cast<uint32_t>(value & ~kMany));
  const std::vector<Place> last = std::exchange(list, {});
  list_bytes_ -= last.capacity() * sizeof(Place);
  if (last.empty()) return false;
  value = last[0];
  return true;
}

// Looks through some tables for engine keys of blocks that are gone.
void RunIndex::SweepSome(size_t tables) {
  const size_t end = std::min(swept_ + tables, EngineMap::kTables);
  engines_.Sweep(swept_, end, [this](uint64_t, uint64_t& value) { return KeepEngineKey(value); });
  swept_ = end == EngineMap::kTables ? 0 : end;
  if (swept_ == 0) stale_ = 0;
}

}  // namespace llmd::kv
