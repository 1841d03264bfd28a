// Mean over endpoints of max(queue/Tq, kv/Tkv) (docs/reference/flow-control.md). An endpoint whose
// metrics are missing or stale is judged by the requests this picker itself has on it, so that a
// dead metrics page neither freezes the pool nor hides its load.
#include <algorithm>
#include <cmath>

#include "llmd/sched/filter.h"
#include "llmd/sched/hooks.h"
#include "llmd/sched/saturation.h"
#include "plugins/builtin.h"
#include "plugins/common.h"
#include "plugins/flow/unseen_requests.h"
#include "plugins/producer/inflight.h"

namespace llmd::sched {
namespace {

struct Settings {
  double queue, kv, headroom, stale_requests;
  Duration staleness;
};

class UtilizationDetector final : public SaturationDetector,
                                  public Filter,
                                  public PreRequestHook,
                                  public ResponseHook {
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
      sum += Of(snapshot, c, now, unseen_.Count(snapshot.set->slots[c], snapshot.updated[c]));
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
  // As a filter it drops stale endpoints too, and keeps all when none would remain.
  void Keep(RequestContext&, const Snapshot& snapshot, std::vector<uint32_t>& candidates) override {
    const TimePoint now = clock_.Now();
    const auto drop = [&](uint32_t c) {
      return IsStale(snapshot, c, now) || Of(snapshot, c, now, 0) >= 1 + s_.headroom;
    };
    if (!std::all_of(candidates.begin(), candidates.end(), drop)) std::erase_if(candidates, drop);
  }

  void PreRequest(RequestContext& request, const Snapshot& snapshot, const ScheduleOutcome& outcome,
                  HeaderList&) override {
    if (!outcome.primary.empty()) Open(request, snapshot.set->slots[outcome.primary[0]], false);
    if (!outcome.prefill.empty()) Open(request, snapshot.set->slots[outcome.prefill[0]], true);
  }
  void OnFirstChunk(RequestContext& request, const ResponseInfo&) override {
    Close(request, [](const Charge& c) { return c.until_first_chunk; });
    Answered(request);
  }
  void OnEnd(RequestContext& request, const ResponseInfo&) override {
    Close(request, [](const Charge&) { return true; });
    Answered(request);
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
      return in_flight_.Requests(snapshot.set->slots[c]) / s_.stale_requests;
    }
    return std::max((snapshot.waiting[c] + unseen) / s_.queue, snapshot.kv_usage[c] / s_.kv);
  }
  void Open(RequestContext& request, uint32_t slot, bool prefill) {
    in_flight_.Add(slot, 1, 0);
    request.charges.push_back(
        {.owner = this, .slot = slot, .until_first_chunk = prefill, .mark = unseen_.Sent(slot)});
  }
  void Answered(RequestContext& request) {
    for (Charge& c : request.charges) {
      if (c.owner == this && std::exchange(c.tokens_open, false)) unseen_.Answered(c.slot, c.mark);
    }
  }
  template <typename Wanted>
  void Close(RequestContext& request, Wanted wanted) {
    for (Charge& c : request.charges) {
      if (c.owner != this || !wanted(c)) continue;
      if (std::exchange(c.request_open, false)) in_flight_.Add(c.slot, -1, 0);
    }
  }

  const Settings s_;
  const Clock& clock_;
  Gauge& stale_gauge_;
  SlotCounters in_flight_;
  UnseenRequests unseen_;
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
