#include <algorithm>

#include "llmd/sched/usage_limit.h"
#include "plugins/builtin.h"
#include "plugins/common.h"

namespace llmd::sched {
namespace {

class StaticUsageLimit final : public UsageLimitPolicy {
 public:
  explicit StaticUsageLimit(double threshold) : threshold_(threshold) {}
  void Ceilings(double, std::span<const int>, std::span<double> ceilings) override {
    std::fill(ceilings.begin(), ceilings.end(), threshold_);
  }
  bool repeats() const override { return true; }

 private:
  const double threshold_;
};

}  // namespace

Status RegisterStaticUsageLimitPolicy(PluginRegistry& registry) {
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
