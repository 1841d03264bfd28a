// Formula: docs/reference/filters.md, prefix-cache-affinity-filter.
#include <algorithm>
#include <limits>

#include "llmd/sched/filter.h"
#include "plugins/builtin.h"
#include "plugins/common.h"
#include "plugins/predictions.h"

namespace llmd::sched {
namespace {

struct Settings {
  double threshold = 0.8, exploration = 0, max_penalty_ms = 18'000, peak_tokens_per_s = 15'928;
  DataKey match = kNoKey, load = kNoKey;
  DataKey latency = kNoKey;  // with ttftSource latencyPredictor
};

class PrefixCacheAffinityFilter final : public Filter {
 public:
  explicit PrefixCacheAffinityFilter(Settings settings) : s_(settings) {}

  void Keep(RequestContext& request, const Snapshot& snapshot,
            std::vector<uint32_t>& candidates) override {
    const Attribute* match = request.Get(s_.match);
    if (candidates.size() <= 1 || match == nullptr || match->total <= 0) return;
    const auto sticky = [&](uint32_t c) {
      return match->per_endpoint[c] / match->total >= s_.threshold;
    };
    if (std::none_of(candidates.begin(), candidates.end(), sticky)) return;
    if (s_.exploration > 0 && RandomUnit(request.random) < s_.exploration) return;
    constexpr double kNone = std::numeric_limits<double>::infinity();
    double best_sticky = kNone, best_other = kNone;
    const LatencyPrediction* predicted = PredictionsOf(request, s_.latency, snapshot);
    for (uint32_t c : candidates) {
      double& best = sticky(c) ? best_sticky : best_other;
      best = std::min(best, TtftMs(request, predicted, c));
    }
    // Waiting for the cache costs more than computing again elsewhere. What is not predicted says
    // nothing against the cache.
    if (best_sticky < kNone && best_sticky - best_other > s_.max_penalty_ms) return;
    std::erase_if(candidates, [&](uint32_t c) { return !sticky(c); });
  }

 private:
  // Infinity = not known.
  double TtftMs(const RequestContext& request, const LatencyPrediction* predicted,
                uint32_t c) const {
    if (s_.latency != kNoKey) {
      constexpr double kUnknown = std::numeric_limits<double>::infinity();
      return predicted && predicted[c].ttft_ms >= 0 ? predicted[c].ttft_ms : kUnknown;
    }
    const Attribute* load = request.Get(s_.load);
    return load ? load->second[c] / s_.peak_tokens_per_s * 1000 : 0;
  }
  const Settings s_;
};

StatusOr<std::unique_ptr<Plugin>> Make(PluginArgs& args) {
  Params params(args.parameters);
  Settings s;
  s.threshold = params.Double("affinityThreshold", s.threshold, 0, 1);
  s.exploration = params.Double("explorationProbability", 0, 0, 1);
  s.max_penalty_ms = params.Double("maxTTFTPenaltyMs", s.max_penalty_ms, 0, 1e9);
  s.peak_tokens_per_s = params.Double("peakPrefillThroughput", s.peak_tokens_per_s, 1e-3, 1e12);
  const std::string source =
      params.Choice("ttftSource", "prefillThroughput", {"prefillThroughput", "latencyPredictor"});
  const std::string predictor = params.String("latencyPredictionInfoProducerName", "");
  s.match = args.env.Consume("PrefixCacheMatchInfo",
                             params.String("prefixMatchInfoProducerName", ""), true);
  const std::string load = params.String("inFlightLoadProducerName", "");
  if (source == "latencyPredictor") {
    s.latency = args.env.Consume("LatencyPredictionInfo", predictor, true);
    for (const char* unused : {"peakPrefillThroughput", "inFlightLoadProducerName"}) {
      if (params.Has(unused))
        args.env.Warn(std::string(unused) + " has no effect with ttftSource latencyPredictor");
    }
  } else {
    s.load = args.env.Consume("InFlightLoad", load, true);
    if (!predictor.empty())
      params.Fail("latencyPredictionInfoProducerName", "needs ttftSource latencyPredictor");
  }
  return Done(params, std::make_unique<PrefixCacheAffinityFilter>(s));
}

}  // namespace

Status RegisterPrefixCacheAffinityFilter(PluginRegistry& registry) {
  return AddPlugin(
      registry,
      {.type = "prefix-cache-affinity-filter",
       .kind = "filter",
       .help = "Keeps endpoints that hold most of the prompt, unless their queue costs more than "
               "the cache saves.",
       .params = {{"affinityThreshold", "0.8", "matched share of the prompt that makes it sticky"},
                  {"explorationProbability", "0", "chance of keeping all"},
                  {"maxTTFTPenaltyMs", "18000", "longest extra wait for a sticky endpoint"},
                  {"ttftSource", "prefillThroughput",
                   "prefillThroughput: in-flight tokens over a fixed rate; latencyPredictor: "
                   "predicted-latency-producer"},
                  {"peakPrefillThroughput", "15928", "tokens/s an endpoint prefills"},
                  {"prefixMatchInfoProducerName", "approx-prefix-cache-producer",
                   "whose matches to read"},
                  {"inFlightLoadProducerName", "inflight-load-producer", "whose counts to read"},
                  {"latencyPredictionInfoProducerName", "predicted-latency-producer",
                   "whose predictions to read, with ttftSource latencyPredictor"}},
       .make = Make});
}

}  // namespace llmd::sched
