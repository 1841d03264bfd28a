#include "kv_headroom_scorer.h"

#include <algorithm>
#include <cmath>
#include <memory>

#include "llmd/sched/scorer.h"

namespace {

using namespace llmd::sched;

// score = 1 − (used + needed) / num_blocks, at least 0, where used = kv_usage · num_blocks and
// needed = ⌈(prompt bytes / bytesPerToken + max_tokens) / block_size⌉. Endpoints that do not report
// their cache stay unscored.
class KvHeadroomScorer final : public Scorer {
 public:
  KvHeadroomScorer(double bytes_per_token, double default_max_tokens)
      : bytes_per_token_(bytes_per_token), default_max_tokens_(default_max_tokens) {}

  void Score(RequestContext& request, const Snapshot& snapshot,
             std::span<const uint32_t> candidates, std::span<double> scores) override {
    const double answer =
        request.max_tokens >= 0 ? static_cast<double>(request.max_tokens) : default_max_tokens_;
    const double tokens =
        static_cast<double>(request.prompt_json.size()) / bytes_per_token_ + answer;
    for (size_t i = 0; i < candidates.size(); ++i) {
      const EndpointMetrics& cache = *snapshot.metrics[candidates[i]];
      const double usage = snapshot.kv_usage[candidates[i]];  // NaN when too old to count
      if (std::isnan(usage) || cache.block_size <= 0 || cache.num_blocks <= 0) continue;
      const double needed = std::ceil(tokens / cache.block_size);
      scores[i] = std::max(0.0, 1 - (usage * cache.num_blocks + needed) / cache.num_blocks);
    }
  }

 private:
  const double bytes_per_token_, default_max_tokens_;
};

llmd::StatusOr<std::unique_ptr<Plugin>> Make(PluginArgs& args) {
  Params params(args.parameters);
  const double bytes_per_token = params.Double("bytesPerToken", 4, 0.1, 100);
  const double max_tokens = params.Double("defaultMaxTokens", 256, 0, 1e9);
  LLMD_RETURN_IF_ERROR(params.Finish());
  return std::unique_ptr<Plugin>(std::make_unique<KvHeadroomScorer>(bytes_per_token, max_tokens));
}

}  // namespace

llmd::Status RegisterKvHeadroomScorer(PluginRegistry& registry) {
  return AddPlugin(
      registry,
      {.type = "kv-headroom-scorer",
       .kind = "scorer",
       .help = "Prefers the endpoint that keeps the most free KV cache after this request.",
       .params = {{"bytesPerToken", "4", "bytes of the prompt that count as one token"},
                  {"defaultMaxTokens", "256", "answer's length when the request does not say"}},
       .make = Make});
}
