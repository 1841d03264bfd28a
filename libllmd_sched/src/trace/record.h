// A decision as it is kept: flat buffers that circulate between requests and the ring, turned into
// a DecisionTrace only when someone asks.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "config/graph.h"
#include "llmd/sched/decision.h"
#include "llmd/sched/endpoint.h"

namespace llmd::sched {

struct ProfileRecord {
  int profile = 0;                  // of the graph
  std::vector<uint32_t> kept;       // results of all filters, one after another
  std::vector<uint32_t> kept_ends;  // end of each filter's part in `kept`
  std::vector<uint32_t> candidates;
  std::vector<double> raw;  // scorer-major: scorers × candidates
  std::vector<double> totals;
  std::vector<uint32_t> picked;
  int tied = 0;
  bool saturated = false;  // the filter that emptied the set drops saturated endpoints
};

struct DecisionRecord {
  std::shared_ptr<const GraphNames> names;
  std::shared_ptr<const EndpointSet> set;  // without lives: a ring must not keep them
  std::vector<float> ages_ms;
  std::vector<uint32_t> stale;
  uint64_t id = 0;
  std::string request_id, model;
  int64_t unix_nanos = 0;
  uint64_t decision_ns = 0;
  std::vector<ProfileRecord> profiles;  // the first `profile_count` are this decision's
  size_t profile_count = 0;
  std::string_view decision_type;  // a literal
  int primary = -1;
  int denied_status = 0;
  std::string denied_reason;

  // Empties it and keeps the buffers.
  void Reset();
  // Of its buffers.
  size_t SizeBytes() const;
  void SetEndpoints(const Snapshot& snapshot, TimePoint now);
  DecisionTrace ToTrace() const;
};

// The last `capacity` decisions, or as many of the last as fit in `max_bytes`, in shards by request
// id. Thread-safe.
class DecisionRing {
 public:
  DecisionRing(size_t capacity, size_t max_bytes);
  // Puts the record in and leaves the evicted one's buffers in its place.
  void Swap(DecisionRecord& record);
  // Every decision with that request id, oldest first: one for each try. NOT_FOUND without any.
  StatusOr<std::vector<DecisionTrace>> Find(std::string_view request_id) const;
  // The newest ones, newest first.
  std::vector<DecisionTrace> Latest(size_t limit) const;
  bool enabled() const { return capacity_ > 0; }

 private:
  struct Shard {
    mutable std::mutex mutex;
    std::vector<DecisionRecord> slots;  // guarded by mutex
    size_t next = 0;                    // guarded by mutex
    size_t used = 0;                    // slots from here on are empty; guarded by mutex
    size_t bytes = 0;                   // of the records' buffers; guarded by mutex
  };
  void MakeRoom(Shard& shard) const;
  Shard& ShardOf(std::string_view request_id) const;
  mutable std::vector<Shard> shards_;
  const size_t capacity_, shard_bytes_;
};

}  // namespace llmd::sched
