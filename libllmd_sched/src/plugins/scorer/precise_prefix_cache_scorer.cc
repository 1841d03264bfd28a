// The old form of precise prefix routing: producer and scorer in one plugin.
#include "llmd/sched/scorer.h"
#include "plugins/builtin.h"
#include "plugins/producer/precise_producer.h"

namespace llmd::sched {
namespace {

class PrecisePrefixCacheScorer final : public PreciseProducer, public Scorer {
 public:
  using PreciseProducer::PreciseProducer;
  void Score(RequestContext& request, const Snapshot&, std::span<const uint32_t> candidates,
             std::span<double> scores) override {
    const Attribute* match = request.Get(match_key());
    const bool known = match != nullptr && match->total > 0;
    for (size_t i = 0; i < candidates.size(); ++i)
      scores[i] = known ? match->per_endpoint[candidates[i]] / match->total : 0.0;
  }
};

}  // namespace

Status RegisterPrecisePrefixCacheScorer(PluginRegistry& registry) {
  return AddPlugin(registry,
                   {.type = "precise-prefix-cache-scorer",
                    .kind = "scorer",
                    .stability = Stability::kDeprecated,
                    .help = "precise-prefix-cache-producer and prefix-cache-scorer in one.",
                    .params = PreciseHelp(),
                    .make = MakePrecise<PrecisePrefixCacheScorer>});
}

}  // namespace llmd::sched
