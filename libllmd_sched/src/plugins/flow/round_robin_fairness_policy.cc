#include "llmd/sched/fairness.h"
#include "plugins/builtin.h"
#include "plugins/common.h"
#include "plugins/flow/flow_ring.h"

namespace llmd::sched {
namespace {

class RoundRobinBand final : public FairnessBand {
 public:
  void Add(FlowState& flow) noexcept override { ring_.Add(flow); }
  void Remove(FlowState& flow) noexcept override { ring_.Remove(flow); }
  FlowState& Next(TimePoint, FlowCharge*) noexcept override {
    FlowState& flow = *ring_.current();
    ring_.Advance();
    return flow;
  }

 private:
  FlowRing ring_;
};

class RoundRobin final : public FairnessPolicy {
 public:
  std::unique_ptr<FairnessBand> MakeBand(const OrderingPolicy&) const noexcept override {
    return std::make_unique<RoundRobinBand>();
  }
};

}  // namespace

Status RegisterRoundRobinFairnessPolicy(PluginRegistry& registry) {
  return AddPlugin(registry, {.type = "round-robin-fairness-policy",
                              .kind = "fairness policy",
                              .help = "The flows of the band in turn, a request each.",
                              .make = Simple<RoundRobin>()});
}

}  // namespace llmd::sched
