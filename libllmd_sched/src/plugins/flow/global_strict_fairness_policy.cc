#include "flow/indexed_heap.h"
#include "llmd/sched/fairness.h"
#include "plugins/builtin.h"
#include "plugins/common.h"
#include "plugins/flow/flow_ring.h"

namespace llmd::sched {
namespace {

struct BetterHead {
  const OrderingPolicy* ordering;
  bool operator()(const FlowState& a, const FlowState& b) const {
    return ordering->Before(*a.head, *b.head);
  }
};

class StrictBand final : public FairnessBand {
 public:
  explicit StrictBand(const OrderingPolicy& ordering) : flows_(BetterHead{&ordering}) {}
  void Add(FlowState& flow) noexcept override { flows_.Push(&flow); }
  void Remove(FlowState& flow) noexcept override { flows_.Remove(&flow); }
  void HeadChanged(FlowState& flow) noexcept override { flows_.Update(&flow); }
  FlowState& Next(TimePoint, FlowCharge*) noexcept override { return *flows_.top(); }

 private:
  IndexedHeap<FlowState, FlowPosition, BetterHead> flows_;
};

class GlobalStrict final : public FairnessPolicy {
 public:
  std::unique_ptr<FairnessBand> MakeBand(const OrderingPolicy& ordering) const noexcept override {
    return std::make_unique<StrictBand>(ordering);
  }
};

}  // namespace

Status RegisterGlobalStrictFairnessPolicy(PluginRegistry& registry) {
  return AddPlugin(registry, {.type = "global-strict-fairness-policy",
                              .kind = "fairness policy",
                              .help = "The best head over all flows of the band.",
                              .make = Simple<GlobalStrict>()});
}

}  // namespace llmd::sched
