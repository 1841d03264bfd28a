// A run index as bytes (docs/design/kv-index.md, "Snapshot").
#include <algorithm>

#include "index/run_index.h"
#include "index/snapshot_io.h"

namespace llmd::kv {
namespace {

constexpr std::string_view kMagic = "LLMDKVI1";
constexpr uint32_t kNone = UINT32_MAX;

}  // namespace

Status RunIndex::Save(const Sink& sink) const {
  std::lock_guard lock(mutex_);
  SnapshotWriter out(sink);
  out.Bytes(kMagic.data(), kMagic.size());
  const auto tiers = directory().Tiers();
  out.Number(uint64_t{tiers.size()});
  for (const std::string& tier : tiers) out.Text(tier);
  const auto namespaces = directory().Namespaces();
  out.Number(uint64_t{namespaces.size()});
  for (const IndexNamespace& ns : namespaces) {
    out.Text(ns.model);
    out.Text(ns.lora);
    out.Number(ns.group);
    out.Text(ns.algorithm);
  }
  const auto sources = directory().Sources();
  absl::flat_hash_map<uint32_t, uint32_t> endpoints;  // ordinals, by the number inside the id
  out.Number(uint64_t{sources.size()});
  for (const auto& source : sources) {
    endpoints.emplace(IndexOf(source.id), static_cast<uint32_t>(endpoints.size()));
    out.Text(source.name);
    out.Number(source.position.epoch);
    out.Number(source.position.sequence);
  }
  absl::flat_hash_map<uint32_t, uint32_t> holders;
  out.Number(uint64_t{holder_numbers_.size()});
  for (const auto& [key, number] : holder_numbers_) {
    const HolderState& holder = holders_[number];
    holders.emplace(number, static_cast<uint32_t>(holders.size()));
    out.Number(endpoints.at(holder.endpoint));
    out.Number(static_cast<uint8_t>(holder.tier));
    out.Number(holder.group);
  }
  absl::flat_hash_map<const HolderSet*, uint32_t> sets;
  std::vector<uint32_t> ordinal(runs_.size(), kNone), live;
  for (uint32_t id = 0; id < runs_.size(); ++id) {
    if (runs_[id].view == nullptr) continue;
    ordinal[id] = static_cast<uint32_t>(live.size());
    live.push_back(id);
    for (const RunSpan& span : *runs_[id].view)
      if (span.set != nullptr) sets.emplace(span.set, static_cast<uint32_t>(sets.size()));
  }
  std::vector<const HolderSet*> ordered(sets.size());
  for (const auto& [set, number] : sets) ordered[number] = set;
  out.Number(uint64_t{ordered.size()});
  for (const HolderSet* set : ordered) {
    out.Number(set->count);
    set->ForEach([&](uint32_t holder) { out.Number(holders.at(holder)); });
  }
  out.Number(uint64_t{live.size()});
  for (uint32_t id : live) {
    const Run& run = runs_[id];
    const bool child = run.parent != kNoRun && runs_[run.parent].life == run.parent_life;
    out.Number(run.space);
    out.Number(child ? ordinal[run.parent] : kNone);
    out.Number(static_cast<uint8_t>(run.sealed));
    out.Number(run.length);
    out.Bytes(run.keys, run.length * sizeof(uint64_t));
    out.Number(uint32_t{run.view->spans});
    for (const RunSpan& span : *run.view) {
      out.Number(span.end);
      out.Number(span.set == nullptr ? kNone : sets.at(span.set));
    }
  }
  out.Number(uint64_t{engines_.size()});
  const auto write = [&](uint64_t key, uint64_t value) {
    const bool many = (value & kMany) != 0;
    const std::span<const Place> places =
        many ? std::span<const Place>(lists_[value & ~kMany]) : std::span<const Place>(&value, 1);
    out.Number(key);
    out.Number(
        static_cast<uint32_t>(std::ranges::count_if(places, [&](Place p) { return There(p); })));
    for (Place place : places) {
      if (!There(place)) continue;
      out.Number(ordinal[RunOf(place)]);
      out.Number(OffsetOf(place));
    }
  };
  engines_.ForEach(write);
  return out.Finish();
}

Status RunIndex::Restore(const Source& source) {
  if (!directory().Sources().empty() || !directory().Namespaces().empty())
    return FailedPrecondition("index: a snapshot goes into an index that knows nothing yet");
  return RestoreBody(source);
}

Status RunIndex::RestoreBody(const Source& source) {
  SnapshotReader in(source);
  std::array<char, kMagic.size()> magic;
  LLMD_RETURN_IF_ERROR(in.Bytes(magic.data(), magic.size()));
  if (std::string_view(magic.data(), magic.size()) != kMagic)
    return BadSnapshot("begins otherwise than with " + std::string(kMagic));
  std::vector<TierId> tiers;
  LLMD_ASSIGN_OR_RETURN(uint64_t count, in.Count("tiers", kMaxTiers));
  for (uint64_t i = 0; i < count; ++i) {
    LLMD_ASSIGN_OR_RETURN(const std::string name, in.Text());
    LLMD_ASSIGN_OR_RETURN(const TierId tier, AddTier(name));
    tiers.push_back(tier);
  }
  LLMD_ASSIGN_OR_RETURN(count, in.Count("namespaces", kMaxNamespaces));
  uint16_t spaces = 0;
  for (uint64_t i = 0; i < count; ++i) {
    IndexNamespace ns;
    LLMD_ASSIGN_OR_RETURN(ns.model, in.Text());
    LLMD_ASSIGN_OR_RETURN(ns.lora, in.Text());
    LLMD_ASSIGN_OR_RETURN(ns.group, in.Number<int32_t>());
    LLMD_ASSIGN_OR_RETURN(ns.algorithm, in.Text());
    LLMD_ASSIGN_OR_RETURN(const NamespaceId id, AddNamespace(ns));
    if (static_cast<uint64_t>(id) != i) return BadSnapshot("a namespace stands there twice");
    spaces = std::max(spaces, static_cast<uint16_t>(directory().SpaceOf(id).number + 1));
  }
  std::vector<EndpointId> endpoints;
  LLMD_ASSIGN_OR_RETURN(count, in.Count("endpoints", kMaxEndpoints));
  for (uint64_t i = 0; i < count; ++i) {
    LLMD_ASSIGN_OR_RETURN(const std::string name, in.Text());
    SourcePosition position;
    LLMD_ASSIGN_OR_RETURN(position.epoch, in.Number<uint64_t>());
    LLMD_ASSIGN_OR_RETURN(position.sequence, in.Number<uint64_t>());
    LLMD_ASSIGN_OR_RETURN(const EndpointId endpoint, AddEndpoint(name));
    directory().NotePosition(endpoint, position);
    endpoints.push_back(endpoint);
  }
  std::lock_guard lock(mutex_);
  std::vector<uint32_t> holders;
  LLMD_ASSIGN_OR_RETURN(count, in.Count("holders", kChunk * kChunks));
  for (uint64_t i = 0; i < count; ++i) {
    LLMD_ASSIGN_OR_RETURN(const uint32_t endpoint, in.Number<uint32_t>());
    LLMD_ASSIGN_OR_RETURN(const uint8_t tier, in.Number<uint8_t>());
    LLMD_ASSIGN_OR_RETURN(const int32_t group, in.Number<int32_t>());
    if (endpoint >= endpoints.size() || tier >= tiers.size())
      return BadSnapshot("a holder without an endpoint or tier");
    LLMD_ASSIGN_OR_RETURN(const uint32_t number,
                          HolderOf({endpoints[endpoint], tiers[tier]}, group));
    if (number != i) return BadSnapshot("a holder stands there twice");
    holders.push_back(number);
  }
  LLMD_ASSIGN_OR_RETURN(const std::vector<const HolderSet*> sets, RestoreSets(in, holders));
  LLMD_RETURN_IF_ERROR(RestoreRuns(in, sets, spaces));
  for (const HolderSet* set : sets) sets_.Unref(set);
  LLMD_RETURN_IF_ERROR(RestoreEngineKeys(in));
  return in.CheckEnd();
}

// Each with a reference of its own, so that it stays until all runs are there.
StatusOr<std::vector<const HolderSet*>> RunIndex::RestoreSets(SnapshotReader& in,
                                                              std::span<const uint32_t> holders) {
  std::vector<const HolderSet*> sets;
  std::vector<uint32_t> members;
  LLMD_ASSIGN_OR_RETURN(const uint64_t count, in.Count("sets", UINT32_MAX));
  for (uint64_t i = 0; i < count; ++i) {
    LLMD_ASSIGN_OR_RETURN(const uint32_t size, in.Number<uint32_t>());
    if (size == 0 || size > holders.size()) return BadSnapshot("a set of too many or no holders");
    members.clear();
    for (uint32_t k = 0; k < size; ++k) {
      LLMD_ASSIGN_OR_RETURN(const uint32_t holder, in.Number<uint32_t>());
      if (holder >= holders.size()) return BadSnapshot("a set of unknown holders");
      members.push_back(holder);
    }
    std::ranges::sort(members);
    if (std::ranges::adjacent_find(members) != members.end())
      return BadSnapshot("a set with a holder twice");
    sets.push_back(sets_.Make(members));
    sets_.Ref(sets.back());
  }
  return sets;
}

Status RunIndex::RestoreRuns(SnapshotReader& in, std::span<const HolderSet* const> sets,
                             uint16_t spaces) {
  LLMD_ASSIGN_OR_RETURN(const uint64_t count, in.Count("runs", kNoRun));
  std::vector<uint32_t> parents;
  std::vector<uint64_t> keys;
  for (uint64_t i = 0; i < count; ++i) {
    LLMD_ASSIGN_OR_RETURN(const uint16_t space, in.Number<uint16_t>());
    LLMD_ASSIGN_OR_RETURN(const uint32_t parent, in.Number<uint32_t>());
    LLMD_ASSIGN_OR_RETURN(const uint8_t sealed, in.Number<uint8_t>());
    LLMD_ASSIGN_OR_RETURN(const uint32_t length, in.Number<uint32_t>());
    if (space >= spaces || length == 0 || length > kMaxRun)
      return BadSnapshot("a run of an unknown namespace or of " + std::to_string(length) +
                         " blocks");
    if (parent != kNone && (parent >= count || parent == i))
      return BadSnapshot("a run of no parent");
    keys.resize(length);
    LLMD_RETURN_IF_ERROR(in.Bytes(keys.data(), length * sizeof(uint64_t)));
    if (heads_.Find(space, keys[0]) != nullptr) return BadSnapshot("a run stands there twice");
    LLMD_RETURN_IF_ERROR(RestoreSpans(in, sets, length));
    const uint32_t id = NewRun(space, kNoRun);
    Append(id, keys);
    CountRestored(id);
    Publish(id, false);
    runs_[id].sealed = sealed != 0;
    parents.push_back(parent);
  }
  for (uint32_t id = 0; id < parents.size(); ++id) {
    if (parents[id] == kNone) continue;
    runs_[id].parent = parents[id];
    runs_[id].parent_life = runs_[parents[id]].life;
    ++runs_[parents[id]].children;
  }
  return OkStatus();
}

// Into pieces_.
Status RunIndex::RestoreSpans(SnapshotReader& in, std::span<const HolderSet* const> sets,
                              uint32_t length) {
  LLMD_ASSIGN_OR_RETURN(const uint32_t count, in.Number<uint32_t>());
  if (count == 0 || count > length)
    return BadSnapshot("a run of " + std::to_string(count) + " spans");
  pieces_.clear();
  for (uint32_t i = 0; i < count; ++i) {
    LLMD_ASSIGN_OR_RETURN(const uint32_t end, in.Number<uint32_t>());
    LLMD_ASSIGN_OR_RETURN(const uint32_t set, in.Number<uint32_t>());
    const uint32_t begin = i == 0 ? 0 : pieces_.back().end;
    if (end <= begin || end > length || (set != kNone && set >= sets.size()))
      return BadSnapshot("spans that do not fit their run");
    const HolderSet* held = set == kNone ? nullptr : sets[set];
    if (i > 0 && pieces_.back().set == held) return BadSnapshot("neighbouring spans that are one");
    pieces_.push_back({end, held});
  }
  if (pieces_.back().set == nullptr) return BadSnapshot("a run that ends with a hole");
  return OkStatus();
}

void RunIndex::CountRestored(uint32_t id) {
  uint32_t begin = 0;
  for (const RunSpan& piece : pieces_) {
    const uint32_t count = piece.end - std::exchange(begin, piece.end);
    if (piece.set == nullptr) continue;
    blocks_ += count;
    holder_blocks_ += size_t{count} * piece.set->count;
    piece.set->ForEach([&](uint32_t holder) {
      HolderState& state = holders_[holder];
      state.blocks += count;
      if (!state.runs.empty() && state.runs.back() == id) return;
      list_bytes_ -= state.runs.capacity() * sizeof(uint32_t);
      state.runs.push_back(id);
      list_bytes_ += state.runs.capacity() * sizeof(uint32_t);
      ++state.live_runs;
    });
  }
}

Status RunIndex::RestoreEngineKeys(SnapshotReader& in) {
  LLMD_ASSIGN_OR_RETURN(const uint64_t count, in.Count("engine keys", uint64_t{1} << 40));
  for (uint64_t i = 0; i < count; ++i) {
    LLMD_ASSIGN_OR_RETURN(const uint64_t key, in.Number<uint64_t>());
    LLMD_ASSIGN_OR_RETURN(const uint32_t places, in.Number<uint32_t>());
    for (uint32_t k = 0; k < places; ++k) {
      LLMD_ASSIGN_OR_RETURN(const uint32_t run, in.Number<uint32_t>());
      LLMD_ASSIGN_OR_RETURN(const uint32_t offset, in.Number<uint32_t>());
      if (run >= runs_.size() || offset >= runs_[run].length)
        return BadSnapshot("an engine key of a block that is not there");
      Tie(key, PlaceAt(run, offset));
    }
  }
  return OkStatus();
}

}  // namespace llmd::kv
