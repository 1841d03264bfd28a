// Formula: docs/reference/scorers.md: 1 − min(t, T)/T with t = tokens in flight + this request's
// uncached tokens.
#include <algorithm>

#include "llmd/sched/scorer.h"
#include "plugins/builtin.h"
#include "plugins/common.h"

namespace llmd::sched {
namespace {

class TokenLoadScorer final : public Scorer {
 public:
  TokenLoadScorer(double threshold, DataKey load, DataKey uncached)
      : threshold_(threshold), load_(load), uncached_(uncached) {}
  void Score(RequestContext& request, const Snapshot&, std::span<const uint32_t> candidates,
             std::span<double> scores) override {
    const Attribute* load = request.Get(load_);
    const Attribute* uncached = request.Get(uncached_);
    for (size_t i = 0; i < candidates.size(); ++i) {
      const uint32_t c = candidates[i];
      const double tokens =
          (load ? load->second[c] : 0) + (uncached ? uncached->per_endpoint[c] : 0);
      scores[i] = tokens <= 0 ? 1.0 : 1 - std::min(tokens, threshold_) / threshold_;
    }
  }

 private:
  const double threshold_;
  const DataKey load_, uncached_;
};

}  // namespace

Status RegisterTokenLoadScorer(PluginRegistry& registry) {
  return AddPlugin(
      registry,
      {.type = "token-load-scorer",
       .kind = "scorer",
       .help =
           "Prefers endpoints with few tokens in flight, this request's uncached tokens included.",
       .params = {{"queueThresholdTokens", "4194304", "tokens that give 0"},
                  {"inFlightLoadProducerName", "inflight-load-producer", "whose counts to read"}},
       .make = [](PluginArgs& args) -> StatusOr<std::unique_ptr<Plugin>> {
         Params params(args.parameters);
         const double threshold =
             static_cast<double>(params.Int("queueThresholdTokens", 4194304, 1, int64_t{1} << 50));
         const std::string producer = params.String("inFlightLoadProducerName", "");
         const DataKey load = args.env.Consume("InFlightLoad", producer, true);
         const DataKey uncached = args.env.Consume("UncachedRequestTokens", producer, true);
         return Done(params, std::make_unique<TokenLoadScorer>(threshold, load, uncached));
       }});
}

}  // namespace llmd::sched
