#include "plugins/flow/token_cost.h"

namespace llmd::sched {

TokenCost ReadTokenCost(Params& params) {
  TokenCost cost;
  cost.default_weight = params.Double("defaultWeight", 1, 1e-6, 1e6);
  cost.input = params.Double("inputTokenWeight", 1, 0, 1e6);
  cost.output = params.Double("outputTokenWeight", 2, 0, 1e6);
  cost.expected_output = params.Double("expectedOutputTokens", 128, 0, 1e6);
  if (cost.input + cost.output <= 0) {
    params.Fail("inputTokenWeight", "expected a token weight above 0, of input or output");
  }
  if (!params.Has("weights")) return cost;
  const config::Node weights = params.node("weights");
  if (!weights.IsMap()) {
    params.Fail("weights", "expected a map from fairness id to weight");
    return cost;
  }
  for (const auto& [id, node] : weights.Members()) {
    const StatusOr<double> weight = node.Double();
    if (!weight.ok()) {
      params.Fail(weight.status());
    } else if (!(*weight >= 1e-6 && *weight <= 1e6)) {
      params.Fail(node.Error("expected a weight from 1e-6 to 1e6"));
    } else {
      cost.weights[id] = *weight;
    }
  }
  return cost;
}

std::vector<ParamHelp> TokenCostHelp() {
  return {{"weights", "{}", "share by fairness id; a flow of weight 4 gets four times the tokens"},
          {"defaultWeight", "1", "of flows not in `weights`"},
          {"inputTokenWeight", "1", "cost of a prompt token"},
          {"outputTokenWeight", "2", "cost of an output token"},
          {"expectedOutputTokens", "128",
           "output expected of a flow's first requests; later ones by its average"}};
}

}  // namespace llmd::sched
