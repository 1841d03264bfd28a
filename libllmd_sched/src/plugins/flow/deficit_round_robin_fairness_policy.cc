// Deficit round robin (Shreedhar and Varghese, "Efficient Fair Queuing Using Deficit Round-Robin",
// 1996) over tokens instead of bytes: in its turn a flow gets quantum x weight more credit and goes
// on while its credit covers the next request.
#include <algorithm>
#include <cmath>

#include "llmd/sched/fairness.h"
#include "plugins/builtin.h"
#include "plugins/common.h"
#include "plugins/flow/flow_ring.h"
#include "plugins/flow/token_cost.h"

namespace llmd::sched {
namespace {

struct Settings {
  TokenCost cost;
  double quantum = 0;
};

// scratch.value is the flow's credit.
class DeficitBand final : public FairnessBand {
 public:
  explicit DeficitBand(const Settings& settings) : s_(settings) {}

  void Add(FlowState& flow) noexcept override {
    s_.cost.WeightOf(flow);
    ring_.Add(flow);
    ++count_;
  }
  void Remove(FlowState& flow) noexcept override {
    if (ring_.current() == &flow) served_ = false;
    ring_.Remove(flow);
    --count_;
    // Credit does not outlast the queue, debt does.
    flow.scratch.value = std::min(flow.scratch.value, 0.0);
  }
  FlowState& Next(TimePoint, double* charge) noexcept override {
    for (size_t visited = 0;; ++visited) {
      FlowState& flow = *ring_.current();
      if (!std::exchange(served_, true)) flow.scratch.value += Share(flow);
      const double cost = s_.cost.Estimate(flow, *flow.head);
      if (cost <= flow.scratch.value) {
        flow.scratch.value -= cost;
        *charge = cost;
        return flow;
      }
      ring_.Advance();
      served_ = false;
      if (visited == count_) SkipRounds();
    }
  }
  void Completed(FlowState& flow, TimePoint, double charge,
                 const FlowUsage& usage) noexcept override {
    flow.scratch.value -= s_.cost.Correction(flow, charge, usage);
  }

 private:
  double Share(const FlowState& flow) const { return s_.quantum * flow.scratch.weight; }
  // Nobody could pay: all rounds until somebody can, at once.
  void SkipRounds() {
    double rounds = INFINITY;
    const FlowState* const first = ring_.current();
    do {
      const FlowState& flow = *ring_.current();
      const double lacks = s_.cost.Estimate(flow, *flow.head) - flow.scratch.value;
      rounds = std::min(rounds, std::ceil(lacks / Share(flow)) - 1);
      ring_.Advance();
    } while (ring_.current() != first);
    if (!(rounds > 0)) return;
    do {
      ring_.current()->scratch.value += rounds * Share(*ring_.current());
      ring_.Advance();
    } while (ring_.current() != first);
  }

  const Settings& s_;
  FlowRing ring_;
  size_t count_ = 0;
  bool served_ = false;  // the current flow has had its credit of this turn
};

class DeficitRoundRobin final : public FairnessPolicy {
 public:
  explicit DeficitRoundRobin(Settings settings) : s_(std::move(settings)) {}
  std::unique_ptr<FairnessBand> MakeBand(const OrderingPolicy&) const noexcept override {
    return std::make_unique<DeficitBand>(s_);
  }
  bool wants_usage() const override { return true; }

 private:
  const Settings s_;
};

}  // namespace

Status RegisterDeficitRoundRobinFairnessPolicy(PluginRegistry& registry) {
  std::vector<ParamHelp> help = TokenCostHelp();
  help.push_back({"quantumTokens", "256", "credit of a flow of weight 1 in each of its turns"});
  return AddPlugin(
      registry,
      {.type = "deficit-round-robin-fairness-policy",
       .kind = "fairness policy",
       .help = "Tokens shared by weight, in turns: a request is charged its estimated prompt and "
               "output tokens, corrected when it ends.",
       .params = std::move(help),
       .make = [](PluginArgs& args) -> StatusOr<std::unique_ptr<Plugin>> {
         Params params(args.parameters);
         Settings s;
         s.cost = ReadTokenCost(params);
         s.quantum = params.Double("quantumTokens", 256, 1, 1e9);
         return Done(params, std::make_unique<DeficitRoundRobin>(std::move(s)));
       }});
}

}  // namespace llmd::sched
