#include "trace/record.h"

#include <algorithm>
#include <functional>

namespace llmd::sched {
namespace {

constexpr size_t kShards = 16;

template <typename Container>
size_t HeapBytes(const Container& c) {
  return c.capacity() * sizeof(typename Container::value_type);
}

ProfileTrace TraceOf(const ProfileRecord& record, const GraphNames::Profile& profile) {
  ProfileTrace out;
  out.profile = profile.name;
  uint32_t begin = 0;
  for (size_t f = 0; f < record.kept_ends.size(); ++f) {
    FilterTrace filter{profile.filters[f], {}};
    filter.kept.assign(record.kept.begin() + begin, record.kept.begin() + record.kept_ends[f]);
    begin = record.kept_ends[f];
    out.filters.push_back(std::move(filter));
  }
  const size_t n = record.candidates.size();
  out.candidates.assign(record.candidates.begin(), record.candidates.end());
  for (size_t s = 0; s * n < record.raw.size() && s < profile.scorers.size(); ++s) {
    const double* raw = record.raw.data() + s * n;
    out.scores.push_back({profile.scorers[s].name, profile.scorers[s].weight, {raw, raw + n}});
  }
  out.totals = record.totals;
  out.picker = profile.picker;
  out.picked.assign(record.picked.begin(), record.picked.end());
  out.tied = record.tied;
  if (record.picked.empty()) {
    out.error = record.saturated ? "every endpoint is saturated" : "no endpoint matches";
  }
  return out;
}

}  // namespace

void DecisionRecord::Reset() {
  names.reset();
  set.reset();
  ages_ms.clear();
  stale.clear();
  request_id.clear();
  model.clear();
  profile_count = 0;
  decision_type = {};
  primary = -1;
  denied_status = 0;
  denied_reason.clear();
}

void DecisionRecord::SetEndpoints(const Snapshot& snapshot, TimePoint now) {
  set = snapshot.set && snapshot.set->shown ? snapshot.set->shown : snapshot.set;
  ages_ms.resize(snapshot.size());
  stale.clear();
  for (size_t i = 0; i < snapshot.size(); ++i) {
    if (snapshot.stale[i]) stale.push_back(static_cast<uint32_t>(i));
    const bool never = !snapshot.metrics[i]->ever;
    ages_ms[i] =
        never ? -1 : std::chrono::duration<float, std::milli>(now - snapshot.updated[i]).count();
  }
}

size_t DecisionRecord::SizeBytes() const {
  size_t out = HeapBytes(ages_ms) + HeapBytes(stale) + HeapBytes(request_id) + HeapBytes(model) +
               HeapBytes(denied_reason) + HeapBytes(profiles);
  for (const ProfileRecord& p : profiles) {
    out += HeapBytes(p.kept) + HeapBytes(p.kept_ends) + HeapBytes(p.candidates) + HeapBytes(p.raw) +
           HeapBytes(p.totals) + HeapBytes(p.picked);
  }
  return out;
}

DecisionTrace DecisionRecord::ToTrace() const {
  DecisionTrace out;
  out.request_id = request_id;
  out.model = model;
  out.unix_nanos = unix_nanos;
  out.decision_ns = decision_ns;
  if (set) {
    out.endpoints = set->names;
    out.addresses = set->host_ports;
  }
  out.metrics_age_ms.assign(ages_ms.begin(), ages_ms.end());
  out.stale.assign(stale.begin(), stale.end());
  for (size_t i = 0; i < profile_count; ++i) {
    out.profiles.push_back(TraceOf(profiles[i], names->profiles[profiles[i].profile]));
  }
  out.decision_type = decision_type;
  out.primary = primary;
  out.denied_status = denied_status;
  out.denied_reason = denied_reason;
  return out;
}

DecisionRing::DecisionRing(size_t capacity, size_t max_bytes)
    : shards_(kShards), capacity_(capacity), shard_bytes_(max_bytes / kShards) {
  for (Shard& shard : shards_) shard.slots.resize((capacity + kShards - 1) / kShards);
}

DecisionRing::Shard& DecisionRing::ShardOf(std::string_view request_id) const {
  return shards_[std::hash<std::string_view>()(request_id) % kShards];
}

void DecisionRing::Swap(DecisionRecord& record) {
  if (capacity_ == 0) return;
  Shard& shard = ShardOf(record.request_id);
  const size_t bytes = record.SizeBytes();
  std::lock_guard lock(shard.mutex);
  // Records of a size go round within the bytes by themselves, and no buffer is made or freed.
  if (shard.next == shard.used && shard.bytes + bytes > shard_bytes_) shard.next = 0;
  DecisionRecord& slot = shard.slots[shard.next];
  shard.bytes += bytes;
  if (shard.next < shard.used) shard.bytes -= slot.SizeBytes();
  std::swap(slot, record);
  shard.used = std::max(shard.used, ++shard.next);
  MakeRoom(shard);
  shard.next %= shard.slots.size();
  // Buffers so large would keep out small records for ever.
  if (record.SizeBytes() > shard_bytes_ / 2) record = DecisionRecord();
}

// Frees the oldest records, which follow the newest one, while there are too many bytes.
void DecisionRing::MakeRoom(Shard& shard) const {
  const size_t n = shard.used, newest = shard.next - 1;
  for (size_t i = 1; i < n && shard.bytes > shard_bytes_; ++i) {
    DecisionRecord& oldest = shard.slots[(newest + i) % n];
    shard.bytes -= oldest.SizeBytes();
    oldest = DecisionRecord();
    shard.bytes += oldest.SizeBytes();
  }
  while (shard.slots[shard.used - 1].request_id.empty() && shard.used > shard.next) --shard.used;
}

std::vector<DecisionTrace> DecisionRing::Latest(size_t limit) const {
  // With the decision's number: in virtual time many are of one instant.
  std::vector<std::pair<uint64_t, DecisionTrace>> found;
  for (const Shard& shard : shards_) {
    std::lock_guard lock(shard.mutex);
    const size_t n = shard.slots.size();
    for (size_t back = 1; back <= std::min(n, limit); ++back) {
      const DecisionRecord& record = shard.slots[(shard.next + n - back) % n];
      if (!record.request_id.empty()) found.emplace_back(record.id, record.ToTrace());
    }
  }
  std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) {
    return std::pair(a.second.unix_nanos, a.first) > std::pair(b.second.unix_nanos, b.first);
  });
  if (found.size() > limit) found.resize(limit);
  std::vector<DecisionTrace> out;
  out.reserve(found.size());
  for (auto& [id, trace] : found) out.push_back(std::move(trace));
  return out;
}

StatusOr<std::vector<DecisionTrace>> DecisionRing::Find(std::string_view request_id) const {
  std::vector<DecisionTrace> out;
  if (capacity_ > 0 && !request_id.empty()) {
    const Shard& shard = ShardOf(request_id);
    std::lock_guard lock(shard.mutex);
    const size_t n = shard.slots.size();
    for (size_t i = 0; i < n; ++i) {  // the oldest follows the newest
      const DecisionRecord& record = shard.slots[(shard.next + i) % n];
      if (record.request_id == request_id) out.push_back(record.ToTrace());
    }
  }
  if (!out.empty()) return out;
  return NotFound("no decision for request '" + std::string(request_id) + "' among the last " +
                  std::to_string(capacity_));
}

}  // namespace llmd::sched
