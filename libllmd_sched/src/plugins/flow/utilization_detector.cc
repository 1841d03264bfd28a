// Formula: endpoint-picker.md §7: mean over endpoints of max(queue/Tq, kv/Tkv).
#include <algorithm>

#include "llmd/sched/filter.h"
#include "llmd/sched/saturation.h"
#include "plugins/builtin.h"
#include "plugins/common.h"

namespace llmd::sched {
namespace {

struct Settings {
  double queue = 5, kv = 0.8, headroom = 0;
  Duration staleness = std::chrono::milliseconds(200);
};

class UtilizationDetector final : public SaturationDetector, public Filter {
 public:
  UtilizationDetector(Settings settings, const Clock& clock) : s_(settings), clock_(clock) {}

  double Saturation(const Snapshot& snapshot, const std::vector<uint32_t>& candidates) override {
    if (candidates.empty()) return 1;
    double sum = 0;
    for (uint32_t c : candidates) sum += Of(snapshot, c, clock_.Now());
    return sum / static_cast<double>(candidates.size());
  }
  // As a filter it keeps all when none would remain.
  void Keep(RequestContext&, const Snapshot& snapshot, std::vector<uint32_t>& candidates) override {
    const TimePoint now = clock_.Now();
    const auto full = [&](uint32_t c) { return Of(snapshot, c, now) >= 1 + s_.headroom; };
    if (!std::all_of(candidates.begin(), candidates.end(), full)) std::erase_if(candidates, full);
  }

 private:
  double Of(const Snapshot& snapshot, uint32_t c, TimePoint now) const {
    const bool fresh = snapshot.metrics[c]->ever && now - snapshot.updated[c] <= s_.staleness;
    if (!fresh) return 1;
    return std::max(snapshot.waiting[c] / s_.queue, snapshot.kv_usage[c] / s_.kv);
  }
  const Settings s_;
  const Clock& clock_;
};

}  // namespace

Status RegisterUtilizationDetector(PluginRegistry& registry) {
  return AddPlugin(
      registry,
      {.type = "utilization-detector",
       .kind = "saturation detector, filter",
       .help = "Saturation from the engines' queues and KV use; a stale or missing endpoint counts "
               "as full.",
       .params = {{"queueDepthThreshold", "5", "waiting requests that count as full"},
                  {"kvCacheUtilThreshold", "0.8", "KV use that counts as full"},
                  {"metricsStalenessThreshold", "200ms", "age from which metrics do not count"},
                  {"headroom", "0",
                   "as a filter: how far over full an endpoint may be, 0.2 = 20 %"}},
       .make = [](PluginArgs& args) -> StatusOr<std::unique_ptr<Plugin>> {
         Params params(args.parameters);
         Settings s;
         s.queue = static_cast<double>(params.Int("queueDepthThreshold", 5, 1, INT32_MAX));
         s.kv = params.Double("kvCacheUtilThreshold", 0.8, 1e-6, 1);
         s.staleness = params.Time("metricsStalenessThreshold", s.staleness);
         s.headroom = params.Double("headroom", 0, 0, 1000);
         return Done(params, std::make_unique<UtilizationDetector>(s, *args.env.clock));
       }});
}

}  // namespace llmd::sched
