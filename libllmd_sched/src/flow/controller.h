// Flow control: requests wait in priority bands until the pool has room (endpoint-picker.md §7).
// Higher bands go first; in a band the fairness policy picks a flow, the ordering policy its head.
// Dispatch runs when something arrives, completes or changes, and goes on until the gate closes.
#pragma once

#include <array>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "graph.h"
#include "llmd/clock.h"
#include "llmd/metrics.h"

namespace llmd::sched {

enum class FlowOutcome {
  kDispatched,
  kRejectedCapacity,
  kRejectedNoEndpoints,
  kEvictedTtl,
  kEvictedNoEndpoints,
  kCancelled,
  kShuttingDown
};

struct FlowRequest {
  int priority = 0;
  std::string flow;
  size_t bytes = 0;
  TimePoint slo_deadline = TimePoint::max();
  std::function<void(FlowOutcome)> resume;  // runs exactly once, outside all locks
};

// Thread-safe. Bounded by the bands' and the global capacity.
class FlowController {
 public:
  // `saturation` of the pool now; `empty` = it has no endpoints. Both are called under the
  // controller's lock and must not call back.
  FlowController(std::shared_ptr<const Graph> graph, const Clock& clock, MetricsRegistry& metrics,
                 std::string pool, std::function<double()> saturation, std::function<bool()> empty);
  ~FlowController();

  // Queues; may resume before it returns. The ticket is for Cancel.
  uint64_t Enqueue(FlowRequest request);
  // Resumes with kCancelled when it still waits.
  void Cancel(uint64_t ticket);
  // Dispatches what the gate lets through: call after a completion or a change of the metrics.
  void Pump();
  // Ends what waited longer than its TTL.
  void Expire();
  // Resumes all with kShuttingDown and refuses newcomers. Idempotent.
  void Stop();
  size_t size() const;

 private:
  struct Item : QueuedItem {
    FlowRequest request;
    TimePoint regime_start{};  // when the pool last became empty or usable, or the enqueue
  };
  struct Later {
    const OrderingPolicy* ordering;
    bool operator()(const std::unique_ptr<Item>& a, const std::unique_ptr<Item>& b) const {
      return ordering->Before(*a, *b);
    }
  };
  using Queue = std::set<std::unique_ptr<Item>, Later>;
  struct Band {
    BandConfig config;
    std::map<std::string, Queue> flows;
    std::string last;
    size_t requests = 0;
    double bytes = 0;
    std::array<Counter*, 7> outcomes{};  // by FlowOutcome, made when first counted
  };
  using Ended = std::vector<std::pair<std::function<void(FlowOutcome)>, FlowOutcome>>;

  Band& BandOf(int priority);
  bool Fits(const Band& band, size_t bytes) const;
  std::unique_ptr<Item> PopNext();
  std::unique_ptr<Item> Take(Band& band, std::map<std::string, Queue>::iterator flow,
                             Queue::iterator item);
  void EndIf(const std::function<bool(const Item&)>& wanted, FlowOutcome outcome, Ended& ended);
  void Run(Ended ended);
  void Count(FlowOutcome outcome, int priority);

  const std::shared_ptr<const Graph> graph_;
  const FlowConfig& config_;
  const Clock& clock_;
  MetricsRegistry& metrics_;
  const std::string pool_;
  const std::function<double()> saturation_;
  const std::function<bool()> empty_;
  Gauge &saturation_gauge_, &queue_gauge_;
  mutable std::mutex mutex_;
  std::map<int, Band, std::greater<>>
      bands_;                    // by descending priority; guarded by mutex_, as all that follows
  std::vector<int> priorities_;  // of bands_, descending
  uint64_t next_ticket_ = 1;
  size_t requests_ = 0;
  double bytes_ = 0;
  bool pumping_ = false, again_ = false, stopped_ = false, was_empty_ = false;
};

}  // namespace llmd::sched
