// The virtual token counter of Sheng et al., "Fairness in Serving Large Language Models" (OSDI
// 2024): the flow with the least weighted service goes next; one that comes back from idleness is
// lifted to the level of those who are served, so that it cannot save up credit. The output, which
// the paper counts token by token, is charged as expected and settled at the end.
#include "llmd/sched/fairness.h"
#include "plugins/builtin.h"
#include "plugins/common.h"
#include "plugins/flow/token_cost.h"

namespace llmd::sched {
namespace {

class CounterBand final : public TokenBand {
 public:
  using TokenBand::TokenBand;
  FlowState& Next(TimePoint, FlowCharge* charge) noexcept override {
    FlowState& flow = LeastServed();
    *charge = Charge(flow);
    return flow;
  }
};

class VirtualTokenCounter final : public FairnessPolicy {
 public:
  explicit VirtualTokenCounter(TokenCost cost) : cost_(std::move(cost)) {}
  std::unique_ptr<FairnessBand> MakeBand(const OrderingPolicy&) const noexcept override {
    return std::make_unique<CounterBand>(cost_);
  }
  bool wants_usage() const override { return true; }

 private:
  const TokenCost cost_;
};

}  // namespace

Status RegisterVirtualTokenCounterFairnessPolicy(PluginRegistry& registry) {
  return AddPlugin(
      registry,
      {.type = "virtual-token-counter-fairness-policy",
       .kind = "fairness policy",
       .help =
           "The flow with the fewest tokens served by weight (VTC); estimated prompt and "
           "output tokens, corrected by what the flow's were worth, are charged while a request "
           "is in flight, what it came to when it ends.",
       .params = TokenCostHelp(),
       .make = [](PluginArgs& args) -> StatusOr<std::unique_ptr<Plugin>> {
         Params params(args.parameters);
         TokenCost cost = ReadTokenCost(params);
         return Done(params, std::make_unique<VirtualTokenCounter>(std::move(cost)));
       }});
}

}  // namespace llmd::sched
