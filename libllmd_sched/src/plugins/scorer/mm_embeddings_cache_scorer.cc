#include "llmd/sched/scorer.h"
#include "plugins/builtin.h"
#include "plugins/common.h"

namespace llmd::sched {
namespace {

class MmEmbeddingsCacheScorer final : public Scorer {
 public:
  explicit MmEmbeddingsCacheScorer(DataKey match) : match_(match) {}
  void Score(RequestContext& request, const Snapshot&, std::span<const uint32_t> candidates,
             std::span<double> scores) override {
    const Attribute* match = request.Get(match_);
    const bool known = match != nullptr && match->total > 0;
    for (size_t i = 0; i < candidates.size(); ++i)
      scores[i] = known ? match->per_endpoint[candidates[i]] / match->total : 0.0;
  }

 private:
  const DataKey match_;
};

}  // namespace

Status RegisterMmEmbeddingsCacheScorer(PluginRegistry& registry) {
  return AddPlugin(
      registry,
      {.type = "mm-embeddings-cache-scorer",
       .kind = "scorer",
       .help = "Prefers endpoints that have encoded the request's media.",
       .params = {{"producerName", "mm-embeddings-cache-producer", "whose matches to read"}},
       .make = [](PluginArgs& args) -> StatusOr<std::unique_ptr<Plugin>> {
         Params params(args.parameters);
         const DataKey match =
             args.env.Consume("EncoderCacheMatchInfo", params.String("producerName", ""), true);
         return Done(params, std::make_unique<MmEmbeddingsCacheScorer>(match));
       }});
}

}  // namespace llmd::sched
