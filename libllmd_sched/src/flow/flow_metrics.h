// The llm_d_epp_flow_control_* series (docs/metrics.md).
#pragma once

#include <array>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>

#include "director/keyed_cache.h"
#include "director/name_cap.h"
#include "llmd/metrics.h"

namespace llmd::sched {

enum class FlowOutcome {
  kDispatched,
  kRejectedCapacity,
  kRejectedNoEndpoints,
  kRejectedShuttingDown,
  kEvictedTtl,
  kEvictedNoEndpoints,
  kCancelled,
  kDisplaced,  // made room in a full queue for a request of a higher band
  kShuttingDown
};
inline constexpr size_t kFlowOutcomes = 9;
// The value of the label `outcome`.
const char* OutcomeLabel(FlowOutcome outcome);

// The series of one flow, priority, model and target.
struct FlowSeries {
  std::string flow, priority, model, target;  // label values
  Gauge *size, *bytes;
  // By outcome; made when first used.
  mutable std::array<Histogram*, kFlowOutcomes> waited{};
  mutable std::array<Counter*, kFlowOutcomes> left{};
  // By outcome; the last one is for what was queued.
  mutable std::array<Histogram*, kFlowOutcomes + 1> enqueue{};
};

// Guarded by the controller's lock, but for the public gauges and histograms. Names beyond 1,000
// fairness ids or models are folded into "other".
class FlowMetrics {
 public:
  FlowMetrics(MetricsRegistry& registry, std::string pool);

  const FlowSeries& Of(std::string_view flow, int priority, std::string_view model,
                       std::string_view target);
  void Left(const FlowSeries& series, FlowOutcome outcome, double waited_seconds);
  // `outcome` null = it was queued.
  void Enqueued(const FlowSeries& series, const FlowOutcome* outcome, double seconds);
  // Shares of a band's capacity in use.
  void Use(int priority, double requests, double bytes);
  void GlobalUse(double requests, double bytes, double max_requests, double max_bytes);
  Counter& RevocationsIssued(int priority);

  Gauge &saturation_prefill, &saturation_decode, &saturation_effective;
  Histogram& cycle;
  Counter &revocations_confirmed, &revocations_timed_out;
  Gauge &reclaim_target, &pending_reclaim;
  Histogram& confirmation;

 private:
  struct BandUse {
    Gauge *requests, *bytes;
  };
  Labels Pool(Labels labels) const;
  std::string Fold(std::set<std::string, std::less<>>& known, std::string_view name);
  FlowSeries& Make(std::string_view flow, std::string_view priority, std::string_view model,
                   std::string_view target);

  MetricsRegistry& registry_;
  const std::string pool_;
  KeyedCache<FlowSeries> cache_;
  std::map<std::string, std::unique_ptr<FlowSeries>> series_;
  std::set<std::string, std::less<>> flows_, models_;
  std::map<int, BandUse> bands_;
  Gauge *global_requests_ = nullptr, *global_bytes_ = nullptr;
};

}  // namespace llmd::sched
