// Formula: endpoint-picker.md §7: the lower a band, the earlier its gate closes.
#include "plugins/builtin.h"
#include "plugins/common.h"
#include "plugins/flow/flow_policies.h"

namespace llmd::sched {
namespace {

// Linear from the highest band's ceiling to the lowest one's, by rank or by priority.
class PriorityHoldback final : public UsageLimitPolicy {
 public:
  PriorityHoldback(bool by_value, double min, double max)
      : by_value_(by_value), min_(min), max_(max) {}
  double Ceiling(size_t rank, std::span<const int> priorities) const override {
    if (priorities.size() < 2) return max_;
    const double high = priorities.front(), low = priorities.back();
    const double share =
        by_value_ ? (high - priorities[rank]) / (high - low)
                  : static_cast<double>(rank) / static_cast<double>(priorities.size() - 1);
    return max_ - share * (max_ - min_);
  }

 private:
  const bool by_value_;
  const double min_, max_;
};

}  // namespace

Status RegisterPriorityHoldbackPolicy(PluginRegistry& registry) {
  return AddPlugin(
      registry,
      {.type = "priority-holdback-policy",
       .kind = "usage limit policy",
       .stability = Stability::kAlpha,
       .help = "Saturation ceilings that fall from the highest priority band to the lowest.",
       .params = {{"minCeiling", "", "of the lowest band; required, at least 0 and below 1"},
                  {"maxCeiling", "1", "of the highest band"},
                  {"domain", "rank", "or value: by the priorities' distance"},
                  {"shape", "linear", "the only shape"}},
       .make = [](PluginArgs& args) -> StatusOr<std::unique_ptr<Plugin>> {
         Params params(args.parameters);
         params.Choice("shape", "linear", {"linear"});
         const bool by_value = params.Choice("domain", "rank", {"rank", "value"}) == "value";
         if (!params.Has("minCeiling")) params.Fail("minCeiling", "expected a number");
         const double min = params.Double("minCeiling", 0, 0, 0.999999);
         const double max = params.Double("maxCeiling", 1, 0, 1000);
         if (max < min) params.Fail("maxCeiling", "expected at least minCeiling");
         return Done(params, std::make_unique<PriorityHoldback>(by_value, min, max));
       }});
}

}  // namespace llmd::sched
