// The virtual token counter of Sheng et al., "Fairness in Serving Large Language Models" (OSDI
// 2024): the flow with the least weighted service goes next; a flow that comes back from idleness
// is lifted to the least counter of those waiting, so that it cannot save up credit. The output,
// which the paper counts token by token, is charged as an estimate and corrected at the end.
#include <algorithm>

#include "flow/indexed_heap.h"
#include "llmd/sched/fairness.h"
#include "plugins/builtin.h"
#include "plugins/common.h"
#include "plugins/flow/flow_ring.h"
#include "plugins/flow/token_cost.h"

namespace llmd::sched {
namespace {

// scratch.value is the flow's counter: tokens served over its weight. Ties go by arrival.
struct LeastServed {
  bool operator()(const FlowState& a, const FlowState& b) const {
    return a.scratch.value != b.scratch.value ? a.scratch.value < b.scratch.value
                                              : a.head->sequence < b.head->sequence;
  }
};

class CounterBand final : public FairnessBand {
 public:
  explicit CounterBand(const TokenCost& cost) : cost_(cost) {}

  void Add(FlowState& flow) noexcept override {
    cost_.WeightOf(flow);
    const double floor = flows_.empty() ? last_ : flows_.top()->scratch.value;
    flow.scratch.value = std::max(flow.scratch.value, floor);
    flows_.Push(&flow);
  }
  void Remove(FlowState& flow) noexcept override {
    flows_.Remove(&flow);
    if (flows_.empty()) last_ = flow.scratch.value;
  }
  void HeadChanged(FlowState& flow) noexcept override { flows_.Update(&flow); }
  FlowState& Next(TimePoint, double* charge) noexcept override {
    FlowState& flow = *flows_.top();
    *charge = cost_.Estimate(flow, *flow.head);
    flow.scratch.value += *charge / flow.scratch.weight;
    flows_.Update(&flow);
    return flow;
  }
  void Completed(FlowState& flow, TimePoint, double charge,
                 const FlowUsage& usage) noexcept override {
    flow.scratch.value += cost_.Correction(flow, charge, usage) / flow.scratch.weight;
    if (flow.scratch.position != kNotInHeap) flows_.Update(&flow);
  }

 private:
  const TokenCost& cost_;
  IndexedHeap<FlowState, FlowPosition, LeastServed> flows_;
  double last_ = 0;  // counter of the last flow to leave an emptied band
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
       .help = "The flow with the fewest tokens served by weight (VTC); estimated prompt and "
               "output tokens are charged at dispatch and corrected when the request ends.",
       .params = TokenCostHelp(),
       .make = [](PluginArgs& args) -> StatusOr<std::unique_ptr<Plugin>> {
         Params params(args.parameters);
         TokenCost cost = ReadTokenCost(params);
         return Done(params, std::make_unique<VirtualTokenCounter>(std::move(cost)));
       }});
}

}  // namespace llmd::sched
