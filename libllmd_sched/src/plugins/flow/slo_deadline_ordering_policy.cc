#include "llmd/sched/ordering.h"
#include "plugins/builtin.h"
#include "plugins/common.h"

namespace llmd::sched {
namespace {

class EarliestSloDeadline final : public OrderingPolicy {
 public:
  bool Before(const QueuedItem& a, const QueuedItem& b) const noexcept override {
    return a.slo_deadline != b.slo_deadline ? a.slo_deadline < b.slo_deadline
                                            : a.sequence < b.sequence;
  }
};

}  // namespace

Status RegisterSloDeadlineOrderingPolicy(PluginRegistry& registry) {
  return AddPlugin(
      registry,
      {.type = "slo-deadline-ordering-policy",
       .kind = "ordering policy",
       .help =
           "Earliest TTFT SLO deadline (received + header) first; requests without one go last.",
       .make = Simple<EarliestSloDeadline>()});
}

}  // namespace llmd::sched
