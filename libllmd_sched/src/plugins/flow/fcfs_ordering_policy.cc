#include "llmd/sched/ordering.h"
#include "plugins/builtin.h"
#include "plugins/common.h"

namespace llmd::sched {
namespace {

class Fcfs final : public OrderingPolicy {
 public:
  bool Before(const QueuedItem& a, const QueuedItem& b) const noexcept override {
    return a.sequence < b.sequence;
  }
};

}  // namespace

Status RegisterFcfsOrderingPolicy(PluginRegistry& registry) {
  return AddPlugin(registry, {.type = "fcfs-ordering-policy",
                              .kind = "ordering policy",
                              .help = "First come, first served.",
                              .make = Simple<Fcfs>()});
}

}  // namespace llmd::sched
