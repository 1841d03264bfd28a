// (max − q) / (max − min) over the candidates; all equal gives 1 (docs/reference/scorers.md).
#include <algorithm>
#include <cmath>
#include <limits>

#include "llmd/sched/scorer.h"
#include "plugins/builtin.h"
#include "plugins/common.h"

namespace llmd::sched {
namespace {

// Endpoints whose gauge is not a number stay unscored.
class MinMaxScorer final : public Scorer {
 public:
  explicit MinMaxScorer(std::vector<double> Snapshot::* gauge) : gauge_(gauge) {}
  void Score(RequestContext&, const Snapshot& snapshot, std::span<const uint32_t> candidates,
             std::span<double> scores) override {
    const std::vector<double>& values = snapshot.*gauge_;
    double low = std::numeric_limits<double>::infinity(), high = -low;
    for (uint32_t c : candidates) {
      if (!std::isfinite(values[c])) continue;
      low = std::min(low, values[c]);
      high = std::max(high, values[c]);
    }
    for (size_t i = 0; i < candidates.size(); ++i) {
      const double v = values[candidates[i]];
      if (std::isfinite(v)) scores[i] = high > low ? (high - v) / (high - low) : 1.0;
    }
  }

 private:
  std::vector<double> Snapshot::* const gauge_;
};

template <std::vector<double> Snapshot::* gauge>
StatusOr<std::unique_ptr<Plugin>> Make(PluginArgs& args) {
  Params params(args.parameters);
  return Done(params, std::make_unique<MinMaxScorer>(gauge));
}

}  // namespace

Status RegisterQueueScorer(PluginRegistry& registry) {
  LLMD_RETURN_IF_ERROR(
      AddPlugin(registry, {.type = "queue-scorer",
                           .kind = "scorer",
                           .help = "Prefers short waiting queues, relative to the others.",
                           .make = Make<&Snapshot::waiting>}));
  return AddPlugin(registry, {.type = "running-requests-size-scorer",
                              .kind = "scorer",
                              .help = "Prefers few running requests, relative to the others.",
                              .make = Make<&Snapshot::running>});
}

}  // namespace llmd::sched
