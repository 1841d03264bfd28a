// What the token-weighted fairness policies share: a weight by fairness id, and what a request
// costs.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "llmd/sched/fairness.h"

namespace llmd::sched {

struct TokenCost {
  std::map<std::string, double, std::less<>> weights;
  double default_weight = 1, input = 1, output = 2, expected_output = 128;

  double WeightOf(FlowState& flow) const {
    if (!std::exchange(flow.scratch.known, true)) {
      const auto it = weights.find(flow.id);
      flow.scratch.weight = it == weights.end() ? default_weight : it->second;
      flow.scratch.expected_output = expected_output;
    }
    return flow.scratch.weight;
  }
  // Of the request before it runs: its prompt as estimated and the flow's usual output.
  double Estimate(const FlowState& flow, const QueuedItem& item) const {
    double out = flow.scratch.expected_output;
    if (item.max_output_tokens >= 0 && item.max_output_tokens < out) out = item.max_output_tokens;
    return input * item.prompt_tokens + output * out;
  }
  // What the charge lacked, now that the request is over; learns the flow's usual output.
  double Correction(FlowState& flow, double charge, const FlowUsage& usage) const {
    if (!usage.known) return 0;
    flow.scratch.expected_output += (usage.output_tokens - flow.scratch.expected_output) / 8;
    return input * usage.prompt_tokens + output * usage.output_tokens - charge;
  }
};

// Reads `weights`, `defaultWeight`, `inputTokenWeight`, `outputTokenWeight` and
// `expectedOutputTokens`.
TokenCost ReadTokenCost(Params& params);
// Their help.
std::vector<ParamHelp> TokenCostHelp();

}  // namespace llmd::sched
