// Rule: docs/reference/filters.md, slo-headroom-tier-filter.
#include <algorithm>

#include "llmd/sched/filter.h"
#include "plugins/builtin.h"
#include "plugins/common.h"
#include "plugins/predictions.h"

namespace llmd::sched {
namespace {

class SloHeadroomTierFilter final : public Filter {
 public:
  SloHeadroomTierFilter(double explore, DataKey latency) : explore_(explore), latency_(latency) {}

  void Keep(RequestContext& request, const Snapshot& snapshot,
            std::vector<uint32_t>& candidates) override {
    const LatencyPrediction* info = PredictionsOf(request, latency_, snapshot);
    if (info == nullptr) return;
    const auto meets = [&](uint32_t c) { return info[c].Meets(); };
    // Without any prediction, and with all in one tier, there is nothing to tell apart.
    const auto positive = std::count_if(candidates.begin(), candidates.end(), meets);
    if (positive == 0 || positive == std::ssize(candidates)) return;
    const bool explore = explore_ > 0 && RandomUnit(request.random) < explore_;
    std::erase_if(candidates, [&](uint32_t c) { return meets(c) == explore; });
  }

 private:
  const double explore_;
  const DataKey latency_;
};

}  // namespace

Status RegisterSloHeadroomTierFilter(PluginRegistry& registry) {
  return AddPlugin(
      registry,
      {.type = "slo-headroom-tier-filter",
       .kind = "filter",
       .help = "Keeps the endpoints predicted to meet the request's SLOs, when there are any.",
       .params = {{"epsilonExploreNeg", "0.01", "chance of keeping the others instead"},
                  {"latencyPredictionInfoProducerName", "predicted-latency-producer",
                   "whose predictions to read"}},
       .make = [](PluginArgs& args) -> StatusOr<std::unique_ptr<Plugin>> {
         Params params(args.parameters);
         const double explore = params.Double("epsilonExploreNeg", 0.01, 0, 1);
         const DataKey latency = args.env.Consume(
             "LatencyPredictionInfo", params.String("latencyPredictionInfoProducerName", ""), true);
         return Done(params, std::make_unique<SloHeadroomTierFilter>(explore, latency));
       }});
}

}  // namespace llmd::sched
