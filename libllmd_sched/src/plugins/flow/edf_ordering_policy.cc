#include "llmd/sched/ordering.h"
#include "plugins/builtin.h"
#include "plugins/common.h"

namespace llmd::sched {
namespace {

class EarliestDeadline final : public OrderingPolicy {
 public:
  bool Before(const QueuedItem& a, const QueuedItem& b) const noexcept override {
    return a.deadline != b.deadline ? a.deadline < b.deadline : a.sequence < b.sequence;
  }
};

}  // namespace

Status RegisterEdfOrderingPolicy(PluginRegistry& registry) {
  return AddPlugin(registry, {.type = "edf-ordering-policy",
                              .kind = "ordering policy",
                              .help = "Earliest deadline (enqueue + TTL) first.",
                              .make = Simple<EarliestDeadline>()});
}

}  // namespace llmd::sched
