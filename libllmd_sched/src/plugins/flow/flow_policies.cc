#include "plugins/flow/flow_policies.h"

#include "llmd/sched/fairness.h"
#include "llmd/sched/ordering.h"
#include "plugins/builtin.h"
#include "plugins/common.h"

namespace llmd::sched {
namespace {

class GlobalStrict final : public FairnessPolicy {
 public:
  size_t Next(std::span<const FlowView> flows, const std::string&,
              const OrderingPolicy& ordering) override {
    size_t best = 0;
    for (size_t i = 1; i < flows.size(); ++i) {
      if (ordering.Before(*flows[i].head, *flows[best].head)) best = i;
    }
    return best;
  }
};

class RoundRobin final : public FairnessPolicy {
 public:
  size_t Next(std::span<const FlowView> flows, const std::string& last,
              const OrderingPolicy&) override {
    for (size_t i = 0; i < flows.size(); ++i) {
      if (*flows[i].flow > last) return i;
    }
    return 0;
  }
};

class Fcfs final : public OrderingPolicy {
 public:
  bool Before(const QueuedItem& a, const QueuedItem& b) const override {
    return a.sequence < b.sequence;
  }
};

template <TimePoint QueuedItem::* deadline>
class ByDeadline final : public OrderingPolicy {
 public:
  bool Before(const QueuedItem& a, const QueuedItem& b) const override {
    return a.*deadline != b.*deadline ? a.*deadline < b.*deadline : a.sequence < b.sequence;
  }
};

class StaticUsageLimit final : public UsageLimitPolicy {
 public:
  explicit StaticUsageLimit(double threshold) : threshold_(threshold) {}
  double Ceiling(size_t, std::span<const int>) const override { return threshold_; }

 private:
  const double threshold_;
};

}  // namespace

Status RegisterFlowPolicies(PluginRegistry& registry) {
  LLMD_RETURN_IF_ERROR(AddPlugin(registry, {.type = "global-strict-fairness-policy",
                                            .kind = "fairness policy",
                                            .help = "The best head over all flows of the band.",
                                            .make = Simple<GlobalStrict>()}));
  LLMD_RETURN_IF_ERROR(AddPlugin(registry, {.type = "round-robin-fairness-policy",
                                            .kind = "fairness policy",
                                            .help = "The flows of the band in turn.",
                                            .make = Simple<RoundRobin>()}));
  LLMD_RETURN_IF_ERROR(AddPlugin(registry, {.type = "fcfs-ordering-policy",
                                            .kind = "ordering policy",
                                            .help = "First come, first served.",
                                            .make = Simple<Fcfs>()}));
  LLMD_RETURN_IF_ERROR(AddPlugin(registry, {.type = "edf-ordering-policy",
                                            .kind = "ordering policy",
                                            .help = "Earliest deadline (enqueue + TTL) first.",
                                            .make = Simple<ByDeadline<&QueuedItem::deadline>>()}));
  LLMD_RETURN_IF_ERROR(
      AddPlugin(registry, {.type = "slo-deadline-ordering-policy",
                           .kind = "ordering policy",
                           .help = "Earliest TTFT SLO deadline first.",
                           .make = Simple<ByDeadline<&QueuedItem::slo_deadline>>()}));
  return AddPlugin(registry,
                   {.type = "static-usage-limit-policy",
                    .kind = "usage limit policy",
                    .help = "One saturation ceiling for all bands.",
                    .params = {{"threshold", "1.0", "saturation at which dispatch stops"}},
                    .make = [](PluginArgs& args) -> StatusOr<std::unique_ptr<Plugin>> {
                      Params params(args.parameters);
                      const double threshold = params.Double("threshold", 1.0, 0, 1000);
                      return Done(params, std::make_unique<StaticUsageLimit>(threshold));
                    }});
}

}  // namespace llmd::sched
