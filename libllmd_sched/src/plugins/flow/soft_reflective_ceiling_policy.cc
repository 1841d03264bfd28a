// Band i of n has the reflective ceiling 1 - i * saturation / (n - 1). A band at or over it is open
// in one of `period` decisions, period = round(saturation / (1 - saturation)), and closed in the
// others; one count for all bands, so that they open together and a closed band never stands before
// an open one (docs/reference/flow-control.md).
#include <algorithm>
#include <atomic>
#include <cmath>

#include "llmd/sched/usage_limit.h"
#include "plugins/builtin.h"
#include "plugins/common.h"

namespace llmd::sched {
namespace {

class SoftReflectiveCeiling final : public UsageLimitPolicy {
 public:
  void Ceilings(double saturation, std::span<const int> priorities,
                std::span<double> ceilings) override {
    const size_t n = priorities.size();
    const bool alternates = n > 1 && saturation >= 0.5 && saturation < 1;
    const bool open = alternates && Opens(saturation);
    for (size_t i = 0; i < n; ++i) {
      const double reflected =
          i == 0 ? 1 : 1 - static_cast<double>(i) * saturation / static_cast<double>(n - 1);
      const bool below = i == 0 || saturation < reflected;
      ceilings[i] = below || (open && saturation < 1) ? 1 : 0;
    }
  }

 private:
  bool Opens(double saturation) {
    const double period = std::max(1.0, std::round(saturation / (1 - saturation + 1e-9)));
    const uint64_t turn = turn_.fetch_add(1, std::memory_order_relaxed) + 1;
    return turn % static_cast<uint64_t>(period) == 0;
  }
  std::atomic<uint64_t> turn_{0};  // decisions in which a band alternates
};

}  // namespace

Status RegisterSoftReflectiveCeilingPolicy(PluginRegistry& registry) {
  return AddPlugin(registry,
                   {.type = "soft-reflective-ceiling-policy",
                    .kind = "usage limit policy",
                    .stability = Stability::kAlpha,
                    .help = "Lower bands are let through in ever fewer decisions as saturation "
                            "rises, from 1/2 on.",
                    .make = Simple<SoftReflectiveCeiling>()});
}

}  // namespace llmd::sched
