// Mean over endpoints of max(queue/Tq, kv/Tkv) (docs/reference/flow-control.md). An endpoint whose
// metrics are missing or stale is judged by the requests this picker itself has on it, so that a
// dead metrics page neither freezes the pool nor hides its load.
#include <algorithm>
#include <cmath>

#include "llmd/sched/filter.h"
#include "llmd/sched/saturation.h"
#include "plugins/builtin.h"
#include "plugins/common.h"

namespace llmd::sched {
namespace {

struct Settings {
  double queue, kv, headroom, stale_requests;
  Duration staleness;
};

class UtilizationDetector final : public SaturationDetector, public Filter {
 public:
  UtilizationDetector(Settings settings, PluginArgs& args)
      : s_(settings),
        clock_(*args.env.clock),
        stale_gauge_(args.env.metrics->AddGauge("llm_d_epp_flow_control_stale_endpoints",
                                                "Endpoints judged without fresh metrics",
                                                {{"detector", args.name}})) {}

  double Saturation(const Snapshot& snapshot, const std::vector<uint32_t>& candidates) override {
    if (candidates.empty()) return 1;
    const TimePoint now = clock_.Now();
    double sum = 0;
    for (uint32_t c : candidates) {
      const double unseen = snapshot.set->lives[c]->account().Unseen(snapshot.metrics[c]->page);
      sum += Of(snapshot, c, now, unseen);
    }
    return sum / static_cast<double>(candidates.size());
  }
  double PerRequest(const Snapshot&, const std::vector<uint32_t>& candidates) const override {
    return 1 / (std::min(s_.queue, s_.stale_requests) * static_cast<double>(candidates.size()));
  }
  size_t Stale(const Snapshot& snapshot, const std::vector<uint32_t>& candidates) const override {
    const TimePoint now = clock_.Now();
    const auto stale = std::count_if(candidates.begin(), candidates.end(),
                                     [&](uint32_t c) { return IsStale(snapshot, c, now); });
    stale_gauge_.Set(static_cast<double>(stale));
    return static_cast<size_t>(stale);
  }
  // The next scrape, the age at which metrics still count, and the time an engine takes to abort.
  Duration ReactionTime(Duration refresh) const override {
    return refresh + s_.staleness + std::chrono::milliseconds(250);
  }
  // The next endpoint to be judged without its metrics.
  TimePoint ChangesAt(const Snapshot& snapshot, TimePoint now) const override {
    TimePoint at = TimePoint::max();
    for (uint32_t i = 0; i < snapshot.size(); ++i) {
      if (!IsStale(snapshot, i, now) && s_.staleness < TimePoint::max() - snapshot.updated[i])
        at = std::min(at, snapshot.updated[i] + s_.staleness + Duration(1));
    }
    return at;
  }
  // As a filter it drops stale endpoints too, and keeps all when none would remain.
  void Keep(RequestContext&, const Snapshot& snapshot, std::vector<uint32_t>& candidates) override {
    const TimePoint now = clock_.Now();
    const auto drop = [&](uint32_t c) {
      return IsStale(snapshot, c, now) || Of(snapshot, c, now, 0) >= 1 + s_.headroom;
    };
    if (!std::all_of(candidates.begin(), candidates.end(), drop)) std::erase_if(candidates, drop);
  }

 private:
  bool IsStale(const Snapshot& snapshot, uint32_t c, TimePoint now) const {
    return snapshot.stale[c] || !snapshot.metrics[c]->ever ||
           std::isnan(snapshot.waiting[c] + snapshot.kv_usage[c]) ||
           now - snapshot.updated[c] > s_.staleness;
  }
  // `unseen` requests of ours count as waiting.
  double Of(const Snapshot& snapshot, uint32_t c, TimePoint now, double unseen) const {
    if (IsStale(snapshot, c, now)) {
      return snapshot.set->lives[c]->account().requests() / s_.stale_requests;
    }
    return std::max((snapshot.waiting[c] + unseen) / s_.queue, snapshot.kv_usage[c] / s_.kv);
  }

  const Settings s_;
  const Clock& clock_;
  Gauge& stale_gauge_;
};

}  // namespace

Status RegisterUtilizationDetector(PluginRegistry& registry) {
  return AddPlugin(
      registry,
      {.type = "utilization-detector",
       .kind = "saturation detector, filter",
       .help =
           "Saturation from the engines' queues and KV use; a stale or missing endpoint is "
           "judged by our own requests in flight on it. As a gate it also counts as waiting what "
           "was sent since the last scrape and is not answered.",
       .params = {{"queueDepthThreshold", "5", "waiting requests that count as full"},
                  {"kvCacheUtilThreshold", "0.8", "KV use that counts as full"},
                  {"metricsStalenessThreshold", "200ms", "age from which metrics do not count"},
                  {"staleMaxConcurrency", "100",
                   "own requests in flight that count as full while metrics are stale"},
                  {"headroom", "0",
                   "as a filter: how far over full an endpoint may be, 0.2 = 20 %"}},
       .make = [](PluginArgs& args) -> StatusOr<std::unique_ptr<Plugin>> {
         Params params(args.parameters);
         Settings s{};
         s.queue = static_cast<double>(params.Int("queueDepthThreshold", 5, 1, INT32_MAX));
         s.kv = params.Double("kvCacheUtilThreshold", 0.8, 1e-6, 1);
         s.staleness = params.Time("metricsStalenessThreshold", std::chrono::milliseconds(200));
         if (s.staleness < args.env.refresh_interval) {
           args.env.Warn(
               "metricsStalenessThreshold is shorter than --refresh-metrics-interval: endpoints "
               "are "
               "judged without their metrics between two reads");
         }
         s.stale_requests =
             static_cast<double>(params.Int("staleMaxConcurrency", 100, 1, INT32_MAX));
         s.headroom = params.Double("headroom", 0, 0, 1000);
         return Done(params, std::make_unique<UtilizationDetector>(s, args));
       }});
}

}  // namespace llmd::sched
