// Formula: docs/reference/scorers.md: 0.5 for an empty queue, falling to 0 at the threshold.
#include <algorithm>
#include <cmath>

#include "llmd/sched/scorer.h"
#include "plugins/builtin.h"
#include "plugins/common.h"

namespace llmd::sched {
namespace {

class LoadAwareScorer final : public Scorer {
 public:
  explicit LoadAwareScorer(double threshold) : threshold_(threshold) {}
  void Score(RequestContext&, const Snapshot& snapshot, std::span<const uint32_t> candidates,
             std::span<double> scores) override {
    for (size_t i = 0; i < candidates.size(); ++i) {
      const double waiting = snapshot.waiting[candidates[i]];
      if (!std::isnan(waiting)) {
        scores[i] = 0.5 * (1 - std::clamp(waiting, 0.0, threshold_) / threshold_);
      }
    }
  }

 private:
  const double threshold_;
};

}  // namespace

Status RegisterLoadAwareScorer(PluginRegistry& registry) {
  return AddPlugin(
      registry, {.type = "load-aware-scorer",
                 .kind = "scorer",
                 .help = "0.5 for an empty waiting queue, falling linearly to 0 at the threshold.",
                 .params = {{"threshold", "128", "waiting requests that give 0"}},
                 .make = [](PluginArgs& args) -> StatusOr<std::unique_ptr<Plugin>> {
                   Params params(args.parameters);
                   const double threshold =
                       static_cast<double>(params.Int("threshold", 128, 1, 1 << 30));
                   return Done(params, std::make_unique<LoadAwareScorer>(threshold));
                 }});
}

}  // namespace llmd::sched
