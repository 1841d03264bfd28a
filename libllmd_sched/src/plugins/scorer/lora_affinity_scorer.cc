// Formula: docs/reference/scorers.md: adapter active 1, free slot 0.8, waiting 0.6, else 0.
#include <algorithm>

#include "llmd/sched/scorer.h"
#include "plugins/builtin.h"
#include "plugins/common.h"

namespace llmd::sched {
namespace {

// Asked for each endpoint: adapters' names, often of one length, differ at their ends, so most need
// no call to compare them.
bool Holds(const std::vector<std::string>& names, const std::string& name) {
  if (name.empty()) return std::find(names.begin(), names.end(), name) != names.end();
  return std::any_of(names.begin(), names.end(), [&](const std::string& one) {
    return one.size() == name.size() && one.back() == name.back() && one == name;
  });
}

class LoraAffinityScorer final : public Scorer {
 public:
  void Score(RequestContext& request, const Snapshot& snapshot,
             std::span<const uint32_t> candidates, std::span<double> scores) override {
    for (size_t i = 0; i < candidates.size(); ++i) {
      const EndpointMetrics& m = *snapshot.metrics[candidates[i]];
      const size_t loaded = m.active_models.size() + m.waiting_models.size();
      if (Holds(m.active_models, request.target_model)) {
        scores[i] = 1.0;
      } else if (loaded < static_cast<size_t>(std::max(m.max_active_models, 0))) {
        scores[i] = 0.8;
      } else {
        scores[i] = Holds(m.waiting_models, request.target_model) ? 0.6 : 0.0;
      }
    }
  }
};

}  // namespace

Status RegisterLoraAffinityScorer(PluginRegistry& registry) {
  return AddPlugin(registry,
                   {.type = "lora-affinity-scorer",
                    .kind = "scorer",
                    .help = "Prefers endpoints that have the adapter loaded, or room for it.",
                    .make = Simple<LoraAffinityScorer>()});
}

}  // namespace llmd::sched
