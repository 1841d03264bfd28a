// The endpoints of a pool and their latest metrics. Hands out immutable snapshots; a new one is
// built only after something changed, by the first request that asks.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "llmd/sched/endpoint.h"

namespace llmd::sched {

inline constexpr Duration kNeverStale = Duration::max();

// Thread-safe.
class EndpointStore {
 public:
  // Metrics older than `limit`, and those never read, are stale in the snapshots; with kNeverStale
  // only attributes age. `clock` outlives the store; without one nothing does.
  explicit EndpointStore(const Clock* clock = nullptr, Duration limit = {})
      : clock_(clock), limit_(limit) {}

  // Another limit from now on.
  void SetLimit(Duration limit);

  using Gone = std::function<void(const EndpointInfo&, uint32_t slot)>;
  // Called, outside any lock, for each endpoint that left, before its slot is given to another.
  void OnGone(Gone gone) { gone_ = std::move(gone); }

  // Replaces the members. An endpoint is the same when its ns/name, address, port and labels are;
  // it keeps slot and metrics.
  void Update(std::vector<EndpointInfo> endpoints);
  // New metrics of a member; those of an endpoint that left are dropped.
  void SetMetrics(const std::shared_ptr<const EndpointInfo>& endpoint, EndpointMetrics metrics);
  std::shared_ptr<const EndpointMetrics> Metrics(
      const std::shared_ptr<const EndpointInfo>& endpoint) const;

  std::shared_ptr<const Snapshot> Get() const;
  std::shared_ptr<const EndpointSet> Members() const;
  // Discovery has delivered once.
  bool synced() const { return synced_.load(std::memory_order_acquire); }

 private:
  uint32_t NewSlot();
  std::shared_ptr<const Snapshot> Build(TimePoint now) const;

  const Clock* const clock_;
  Gone gone_;
  std::atomic<bool> synced_{false};
  mutable std::mutex mutex_;
  std::shared_ptr<const EndpointSet> set_ = std::make_shared<EndpointSet>();  // guarded by mutex_
  std::vector<std::shared_ptr<const EndpointMetrics>>
      metrics_;                                       // by index of set_; guarded by mutex_
  std::vector<bool> slot_used_;                       // guarded by mutex_
  Duration limit_;                                    // guarded by mutex_
  mutable std::shared_ptr<const Snapshot> snapshot_;  // null = outdated; guarded by mutex_
  mutable TimePoint good_until_ = TimePoint::max();   // of snapshot_: then an endpoint grows stale
  mutable uint64_t epoch_ = 0;                        // guarded by mutex_
};

}  // namespace llmd::sched
