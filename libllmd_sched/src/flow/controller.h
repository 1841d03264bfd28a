// Flow control: requests wait in priority bands until the pool has room. Higher bands go first; in
// a band the fairness policy picks a flow, the ordering policy its head
// (docs/reference/flow-control.md). Dispatch runs when something arrives, ends or changes, and goes
// on until the gate closes. Several threads may decide at once, as far as the gate lets all pass.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "config/graph.h"
#include "flow/drain_rate.h"
#include "flow/evictor.h"
#include "flow/flow_metrics.h"
#include "flow/pool_load.h"
#include "flow/queue.h"
#include "llmd/clock.h"
#include "llmd/metrics.h"

namespace llmd::sched {

// What became of a request that was handed to Enqueue.
struct FlowResult {
  FlowOutcome outcome = FlowOutcome::kDispatched;
  uint64_t ticket = 0;
  Duration waited{};
  std::string_view reason;  // a literal: why it had to wait, "" = it did not
};

// Views hold for the call.
struct FlowRequest {
  int priority = 0;
  std::string_view flow = "default-flow";
  std::string_view model, target_model;  // for metrics
  size_t bytes = 0;
  TimePoint slo_deadline = TimePoint::max();
  TimePoint received{};  // from which the TTLs count; epoch = now
  Duration ttl{};        // the client's own; 0 = none
  double prompt_tokens = 0, max_output_tokens = -1;
  // When given, holds the ticket before anything else can happen to the request; 0 = refused.
  // Outlives the call of Enqueue.
  std::atomic<uint64_t>* ticket = nullptr;
  // Runs exactly once and is destroyed, both outside all locks.
  std::function<void(const FlowResult&)> resume;
};

struct FlowHooks {
  // The pool now. Called under the controller's lock; must not call back.
  std::function<PoolLoad()> load;
  std::function<bool()> empty;  // it has no endpoints
  // Called under the lock as well; never null.
  OnPluginFailed failed = [](const Plugin&, const Status&) {};
};

// Thread-safe. Bounded by the bands' and the global capacity, and by kMaxBands and Band::kMaxFlows.
class FlowController {
 public:
  // While one stands, Pump on this thread does nothing, as from within a dispatch. For where
  // nothing may be called back; whoever makes one pumps when it is gone. Null = without effect.
  class Pause {
   public:
    explicit Pause(const FlowController* flow)
        : outer_(std::exchange(pumping_, flow ? flow : pumping_)) {}
    ~Pause() { pumping_ = outer_; }
    Pause(const Pause&) = delete;
    Pause& operator=(const Pause&) = delete;

   private:
    const FlowController* const outer_;
  };

  static constexpr size_t kMaxBands = 256;
  static constexpr Duration kIdleFlow = std::chrono::minutes(5),
                            kIdleBand = std::chrono::minutes(10);

  // `refresh` = time between scrapes of the pool's metrics.
  FlowController(std::shared_ptr<const Graph> graph, const Clock& clock, MetricsRegistry& metrics,
                 std::string pool, FlowHooks hooks,
                 Duration refresh = std::chrono::milliseconds(50));
  ~FlowController();

  // Queues; may resume before it returns. The ticket names the request until it ends.
  uint64_t Enqueue(FlowRequest request);
  // Resumes with kCancelled when it still waits.
  void Cancel(uint64_t ticket);
  // A dispatched request may be taken back: `revoke` is called at most once, outside all locks.
  // Without enableEviction it never is.
  void Revocable(uint64_t ticket, std::function<void()> revoke);
  // A dispatched request is not yet decided on when its `resume` returns: until Release it counts
  // as on its way to an endpoint. What several of those may add is PoolLoad::per_request each;
  // where that is not known, the mean share of the requests in flight that were decided on, and
  // while there are none of those, only one request is let through at a time.
  void Hold(uint64_t ticket);
  // It was decided on; dispatches what may go now. Idempotent; Complete does the same.
  void Release(uint64_t ticket);
  // A dispatched request ended; dispatches what now has room. Idempotent.
  void Complete(uint64_t ticket, const FlowUsage& usage);
  // Dispatches what the gate lets through: call after a change of the pool or its metrics.
  void Pump();
  // Ends what waited longer than its TTL, drops idle flows and bands. Cheap when nothing is due.
  void Expire();
  // When Expire or Pump has something to do by the passing of time alone; max = never.
  TimePoint NextDue(TimePoint now) const;
  // Goes on under another configuration. What waits keeps its place and its EDF deadline, what is
  // in flight its ticket; bands, policies, capacities and TTLs are the new ones, and a band whose
  // policies are the same objects keeps what they know. With the gate off all that waits is
  // dispatched, and so is what still comes.
  void Reconfigure(std::shared_ptr<const Graph> graph);
  // Resumes all with kShuttingDown and refuses newcomers. Idempotent.
  void Stop();
  // Brings the gauges of the pool's saturation up to date.
  void ShowLoad();
  // Waiting requests.
  size_t size() const { return size_.load(std::memory_order_relaxed); }
  // Flows and bands that are kept.
  size_t flow_count() const;
  size_t band_count() const;
  // Seconds after which a refused request of that priority may expect its turn, 1..60.
  int RetryAfter(int priority) const;

 private:
  struct InExpiry {
    size_t& operator()(FlowItem& item) const { return item.in_expiry; }
  };
  struct Sooner {
    bool operator()(const FlowItem& a, const FlowItem& b) const {
      return a.expires != b.expires ? a.expires < b.expires : a.sequence < b.sequence;
    }
  };
  using Resume = std::pair<std::function<void(const FlowResult&)>, FlowResult>;
  using Ended = std::vector<Resume>;

  // The configuration of that priority's band, and whether it stands there by itself.
  std::pair<BandConfig, bool> ConfigOf(int priority) const;
  Band& BandOf(int priority);
  void MakeEvictor();
  void Reband(std::unique_ptr<Band>& band);
  void Requeue(Band& from, Band& to);
  bool Admit(const FlowRequest& request, Band& band, Ended& ended);
  bool Fits(const FlowRequest& request) const;
  bool Displace(const FlowRequest& request, Ended& ended);
  FlowItem& Queue(FlowRequest request, Band& band, const FlowSeries& series);
  void SetExpiry(FlowItem& item) const;
  void FollowRegime(TimePoint now);
  PoolLoad ReadLoad();
  FlowItem* Choose(TimePoint now);
  // Of the highest band, when there is no gate.
  FlowItem* Oldest();
  // What the requests on their way to an endpoint may add to the saturation.
  double UnderWay(const PoolLoad& load) const;
  // Takes back the hold of an item in flight.
  void Unhold(FlowItem& item);
  void Blocked(const PoolLoad& load,
               std::map<int, std::unique_ptr<Band>, std::greater<>>::iterator at, size_t rank,
               TimePoint now);
  // The item leaves its queue; what to tell its owner. A dispatched one keeps its slot.
  Resume Leave(FlowItem& item, FlowOutcome outcome, TimePoint now);
  // Both release the lock for the callback; false when there was nothing to do.
  bool DispatchOne(std::unique_lock<std::mutex>& lock);
  bool Revoke(std::unique_lock<std::mutex>& lock);
  void Collect(TimePoint now);
  void ShowUse(const Band& band);
  static void Run(Ended& ended);

  static inline thread_local constinit const FlowController* pumping_ = nullptr;
  const Clock& clock_;
  const Duration refresh_;
  FlowMetrics metrics_;
  const FlowHooks hooks_;
  std::atomic<size_t> size_{0};
  mutable std::mutex mutex_;  // guards all that follows
  std::shared_ptr<const Graph> graph_;
  const FlowConfig* config_;  // of graph_
  FlowItems items_;
  std::map<int, std::unique_ptr<Band>, std::greater<>> bands_;  // by descending priority
  std::vector<int> priorities_;                                 // of bands_, descending
  std::vector<double> ceilings_;                                // by rank; of the last decision
  std::vector<Demand> demands_;
  IndexedHeap<FlowItem, InExpiry, Sooner> expiry_;  // queued items that have a TTL
  std::unique_ptr<Evictor> evictor_;                // null without enableEviction
  std::vector<std::function<void()>> revocations_;  // to be called
  DrainRate drain_;
  uint64_t next_sequence_ = 1;
  uint64_t blocked_up_to_ = 0;     // newest sequence that a closed gate has held
  std::string_view block_reason_;  // why
  size_t requests_ = 0, in_flight_ = 0;
  double bytes_ = 0;
  TimePoint collect_at_{};
  // Dispatched, but not yet to be seen in the saturation: in their `resume`, and held after it.
  size_t deciding_ = 0, held_ = 0;
  bool stopped_ = false, was_empty_ = false;
};

}  // namespace llmd::sched
