// Rule: docs/reference/admitters.md. A denial is "saturated" (429), not upstream's 500.
#include <algorithm>

#include "llmd/sched/admitter.h"
#include "plugins/builtin.h"
#include "plugins/common.h"
#include "plugins/predictions.h"

namespace llmd::sched {
namespace {

constexpr double kColdKvUsage = 0.02;

class LatencySloAdmitter final : public Admitter {
 public:
  explicit LatencySloAdmitter(DataKey latency) : latency_(latency) {}
  AdmissionDenied Admit(RequestContext& request, const Snapshot& snapshot) override {
    const LatencyPrediction* info = PredictionsOf(request, latency_, snapshot);
    const bool asks = request.slo_ttft_ms >= 0 || request.slo_tpot_ms >= 0;
    if (request.priority >= 0 || !asks || info == nullptr) return {};
    bool predicted = false;
    for (uint32_t i : request.eligible) {
      const LatencyPrediction& p = info[i];
      predicted = predicted || p.valid;
      // NaN, the use of a stale endpoint, is not cold.
      if (p.Meets() || p.dispatched == 0 || snapshot.kv_usage[i] < kColdKvUsage) return {};
    }
    if (!predicted) return {};
    return {429, "request cannot be admitted: no endpoint is predicted to meet its SLOs",
            "rejected-saturated"};
  }

 private:
  const DataKey latency_;
};

}  // namespace

Status RegisterLatencySloAdmitter(PluginRegistry& registry) {
  return AddPlugin(
      registry,
      {.type = "latency-slo-admitter",
       .kind = "admitter",
       .help = "Refuses requests of negative priority (429) whose SLOs no endpoint is predicted to "
               "meet, unless one is idle or its cache nearly empty.",
       .params = {{"latencyPredictionInfoProducerName", "predicted-latency-producer",
                   "whose predictions to read"}},
       .make = [](PluginArgs& args) -> StatusOr<std::unique_ptr<Plugin>> {
         Params params(args.parameters);
         const DataKey latency = args.env.Consume(
             "LatencyPredictionInfo", params.String("latencyPredictionInfoProducerName", ""), true);
         return Done(params, std::make_unique<LatencySloAdmitter>(latency));
       }});
}

}  // namespace llmd::sched
