// Formula: docs/reference/scorers.md, over the requests this picker itself has in flight.
#include <algorithm>

#include "llmd/sched/scorer.h"
#include "plugins/builtin.h"
#include "plugins/common.h"

namespace llmd::sched {
namespace {

class ActiveRequestScorer final : public Scorer {
 public:
  ActiveRequestScorer(double idle, double busy, DataKey load)
      : idle_(idle), busy_(busy), load_(load) {}
  void Score(RequestContext& request, const Snapshot&, std::span<const uint32_t> candidates,
             std::span<double> scores) override {
    const Attribute* load = request.Get(load_);
    double most = 0;
    for (uint32_t c : candidates) most = std::max(most, load ? load->per_endpoint[c] : 0);
    for (size_t i = 0; i < candidates.size(); ++i) {
      const double count = load ? load->per_endpoint[candidates[i]] : 0;
      scores[i] = count <= idle_ ? 1.0 : (most - count) / most * busy_;
    }
  }

 private:
  const double idle_, busy_;
  const DataKey load_;
};

}  // namespace

Status RegisterActiveRequestScorer(PluginRegistry& registry) {
  return AddPlugin(
      registry,
      {.type = "active-request-scorer",
       .kind = "scorer",
       .help = "Prefers endpoints with few of our own requests in flight.",
       .params = {{"idleThreshold", "0", "requests up to which an endpoint counts as idle (1)"},
                  {"maxBusyScore", "1", "upper bound of the score of busy endpoints"},
                  {"inFlightLoadProducerName", "inflight-load-producer", "whose counts to read"}},
       .make = [](PluginArgs& args) -> StatusOr<std::unique_ptr<Plugin>> {
         Params params(args.parameters);
         const double idle = static_cast<double>(params.Int("idleThreshold", 0, 0, 1 << 30));
         const double busy = params.Double("maxBusyScore", 1, 0, 1);
         const DataKey load =
             args.env.Consume("InFlightLoad", params.String("inFlightLoadProducerName", ""), true);
         return Done(params, std::make_unique<ActiveRequestScorer>(idle, busy, load));
       }});
}

}  // namespace llmd::sched
