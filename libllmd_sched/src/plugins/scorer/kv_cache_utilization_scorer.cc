// Formula: docs/reference/scorers.md: 1 − usage.
#include "llmd/sched/scorer.h"
#include "plugins/builtin.h"
#include "plugins/common.h"

namespace llmd::sched {
namespace {

class KvCacheUtilizationScorer final : public Scorer {
 public:
  void Score(RequestContext&, const Snapshot& snapshot, std::span<const uint32_t> candidates,
             std::span<double> scores) override {
    for (size_t i = 0; i < candidates.size(); ++i) scores[i] = 1 - snapshot.kv_usage[candidates[i]];
  }
};

}  // namespace

Status RegisterKvCacheUtilizationScorer(PluginRegistry& registry) {
  return AddPlugin(registry, {.type = "kv-cache-utilization-scorer",
                              .kind = "scorer",
                              .help = "Prefers endpoints with free KV cache.",
                              .make = Simple<KvCacheUtilizationScorer>()});
}

}  // namespace llmd::sched
