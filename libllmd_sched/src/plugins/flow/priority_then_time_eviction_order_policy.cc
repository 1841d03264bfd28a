#include "llmd/sched/eviction.h"
#include "plugins/builtin.h"
#include "plugins/common.h"

namespace llmd::sched {
namespace {

// Newest first within a priority: it has the least work to lose.
class PriorityThenTime final : public EvictionOrder {
 public:
  bool Before(const InFlightItem& a, const InFlightItem& b) const noexcept override {
    if (a.priority != b.priority) return a.priority < b.priority;
    if (a.dispatched != b.dispatched) return a.dispatched > b.dispatched;
    return a.sequence > b.sequence;
  }
};

}  // namespace

Status RegisterPriorityThenTimeEvictionOrderPolicy(PluginRegistry& registry) {
  return AddPlugin(registry, {.type = "priority-then-time-eviction-order-policy",
                              .kind = "eviction policy",
                              .help = "The lowest priority first, in it the newest.",
                              .make = Simple<PriorityThenTime>()});
}

}  // namespace llmd::sched
