// The endpoints of a pool and their latest metrics. Hands out immutable snapshots; a new one is
// built only after something changed, by the first request that asks.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "llmd/sched/endpoint.h"

namespace llmd::sched {

inline constexpr Duration kNeverStale = Duration::max();
// So long an address may be missing without ending the life of what has requests on their way.
inline constexpr Duration kShortAbsence = std::chrono::seconds(10);

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
  // Called, outside any lock, for each endpoint that left or whose process is another one now.
  void OnGone(Gone gone) { gone_ = std::move(gone); }
  // Called, outside any lock, for each slot that nobody holds any more, before another endpoint may
  // get it.
  void OnSlotFree(std::function<void(uint32_t slot)> free) { slot_free_ = std::move(free); }

  // Replaces the members. One with the ns/name, address and port of a member goes on with its life,
  // slot and metrics, whatever else was edited. One at an address that was left within
  // kShortAbsence, with requests still on their way, goes on with the life that was there; of
  // several that left it at once, with that of the first. Of several with one ns/name, address and
  // port the first counts.
  void Update(std::vector<EndpointInfo> endpoints);
  // New metrics of a member; those of an endpoint that left, or was edited, are dropped. When they
  // come from a younger process than before, a new life begins. With `gauges` they hold gauges just
  // read: a page of its own, whatever its time.
  void SetMetrics(const std::shared_ptr<const EndpointInfo>& endpoint, EndpointMetrics metrics,
                  bool gauges = true);
  std::shared_ptr<const EndpointMetrics> Metrics(
      const std::shared_ptr<const EndpointInfo>& endpoint) const;

  std::shared_ptr<const Snapshot> Get() const;
  // Until then what Get gives now stays true unless somebody changes it; later than now.
  TimePoint GoodUntil() const;
  std::shared_ptr<const EndpointSet> Members() const;
  // Discovery has delivered once.
  bool synced() const { return synced_.load(std::memory_order_acquire); }

 private:
  // An endpoint that left.
  struct Left {
    std::shared_ptr<const EndpointInfo> info;
    std::shared_ptr<const EndpointLife> life;
    TimePoint at{};
    double process_start = 0;
  };
  struct Member {
    std::shared_ptr<const EndpointInfo> info;
    std::shared_ptr<const EndpointLife> life;
    std::shared_ptr<const EndpointMetrics> metrics;
  };
  void FreeSlots();
  // These under mutex_.
  std::vector<Left> Replace(std::vector<EndpointInfo> endpoints, TimePoint now);
  Member Join(EndpointInfo info, TimePoint now);
  void SetMembers(std::vector<Member> members);
  void ForgetLeft(TimePoint now);
  // Gives a member another life; the one that ended.
  std::shared_ptr<const EndpointLife> Restart(size_t i);
  std::shared_ptr<const Snapshot> Build(TimePoint now) const;
  TimePoint Now() const { return clock_ ? clock_->Now() : TimePoint(); }

  const Clock* const clock_;
  Gone gone_;
  std::function<void(uint32_t)> slot_free_;
  std::atomic<bool> synced_{false};
  const std::shared_ptr<EndpointSlots> slots_ = std::make_shared<EndpointSlots>();
  mutable std::mutex mutex_;
  std::shared_ptr<const EndpointSet> set_ = std::make_shared<EndpointSet>();  // guarded by mutex_
  std::vector<std::shared_ptr<const EndpointMetrics>>
      metrics_;                                         // by index of set_; guarded by mutex_
  std::unordered_map<const EndpointInfo*, size_t> at_;  // into set_; guarded by mutex_
  std::unordered_map<std::string, Left> left_;          // by address; guarded by mutex_
  Duration limit_;                                      // guarded by mutex_
  uint64_t pages_ = 0;                                  // read so far; guarded by mutex_
  mutable std::shared_ptr<const Snapshot> snapshot_;    // null = outdated; guarded by mutex_
  mutable TimePoint good_until_ = TimePoint::max();     // of snapshot_: then one grows stale
  mutable uint64_t epoch_ = 0;                          // guarded by mutex_
};

}  // namespace llmd::sched
