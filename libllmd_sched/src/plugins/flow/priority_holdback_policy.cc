// Formula: docs/reference/flow-control.md: the lower a band, the earlier its gate closes.
#include "llmd/sched/usage_limit.h"
#include "plugins/builtin.h"
#include "plugins/common.h"

namespace llmd::sched {
namespace {

// Linear from the highest band's ceiling to the lowest one's, by rank or by priority.
class PriorityHoldback final : public UsageLimitPolicy {
 public:
  PriorityHoldback(bool by_value, double min, double max)
      : by_value_(by_value), min_(min), max_(max) {}
  void Ceilings(double, std::span<const int> priorities, std::span<double> ceilings) override {
    const size_t n = priorities.size();
    for (size_t i = 0; i < n; ++i) {
      ceilings[i] = n < 2 ? max_ : max_ - Share(i, priorities) * (max_ - min_);
    }
  }
  bool repeats() const override { return true; }

 private:
  // 0 for the highest band, 1 for the lowest.
  double Share(size_t rank, std::span<const int> priorities) const {
    const double high = priorities.front(), low = priorities.back();
    return by_value_ ? (high - priorities[rank]) / (high - low)
                     : static_cast<double>(rank) / static_cast<double>(priorities.size() - 1);
  }
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
