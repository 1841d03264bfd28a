#include "llmd/sched/eviction.h"
#include "plugins/builtin.h"
#include "plugins/common.h"

namespace llmd::sched {
namespace {

class Sheddable final : public EvictionFilter {
 public:
  bool Revocable(const InFlightItem& item) const noexcept override { return item.priority < 0; }
};

}  // namespace

Status RegisterSheddableEvictionFilter(PluginRegistry& registry) {
  return AddPlugin(registry,
                   {.type = "sheddable-eviction-filter",
                    .kind = "eviction policy",
                    .help = "Only requests of negative priority may be taken back in flight, and "
                            "only for a higher band.",
                    .make = Simple<Sheddable>()});
}

}  // namespace llmd::sched
