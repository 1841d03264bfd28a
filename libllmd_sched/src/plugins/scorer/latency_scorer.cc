// Formula: docs/reference/scorers.md, latency-scorer. Of the endpoints that miss an SLO the
// smallest deficit wins under either strategy: it is also the most headroom there is.
#include <algorithm>
#include <cmath>
#include <limits>

#include "llmd/sched/scorer.h"
#include "plugins/builtin.h"
#include "plugins/common.h"
#include "plugins/predictions.h"

namespace llmd::sched {
namespace {

struct Settings {
  double ttft = 0.8, tpot = 0.2;
  bool most = false;
  double kv = 0, queue = 0, prefix = 0;
  DataKey latency = kNoKey, match = kNoKey;
};

// Tiers, best first. Only the best one present scores.
enum Tier { kMeets, kIdle, kTpotMisses, kTtftMisses, kBothMiss, kUnpredicted };

Tier TierOf(const LatencyPrediction& p) {
  if (!p.valid) return kUnpredicted;
  if (p.Meets()) return kMeets;
  if (p.dispatched == 0) return kIdle;
  if (p.ttft_headroom_ms >= 0) return kTpotMisses;
  return p.tpot_headroom_ms >= 0 ? kTtftMisses : kBothMiss;
}

struct Range {
  double low = std::numeric_limits<double>::infinity(), high = 0;
  void Add(double v) {
    low = std::min(low, v);
    high = std::max(high, v);
  }
  bool flat() const { return high - low <= 0; }
  double Of(double v) const { return flat() ? 0.5 : (v - low) / (high - low); }
};

class LatencyScorer final : public Scorer {
 public:
  explicit LatencyScorer(Settings settings) : s_(settings) {}

  void Score(RequestContext& request, const Snapshot& snapshot,
             std::span<const uint32_t> candidates, std::span<double> scores) override {
    const LatencyPrediction* info = PredictionsOf(request, s_.latency, snapshot);
    Tier best = kUnpredicted;
    for (uint32_t c : candidates) best = info ? std::min(best, TierOf(info[c])) : kUnpredicted;
    if (best == kUnpredicted) return Composite(request, snapshot, candidates, scores);
    Range ttft, tpot;
    for (uint32_t c : candidates) {
      const LatencyPrediction& p = info[c];
      if (TierOf(p) != best) continue;
      ttft.Add(std::abs(p.ttft_headroom_ms));
      tpot.Add(std::abs(p.tpot_headroom_ms));
    }
    const double alpha = ttft.flat() ? 0 : s_.ttft, beta = tpot.flat() ? 0 : s_.tpot;
    const bool most = s_.most && best == kMeets;
    for (size_t i = 0; i < candidates.size(); ++i) {
      const LatencyPrediction& p = info[candidates[i]];
      scores[i] = 0;
      if (TierOf(p) != best) continue;
      const double c = alpha * ttft.Of(std::abs(p.ttft_headroom_ms)) +
                       beta * tpot.Of(std::abs(p.tpot_headroom_ms));
      scores[i] = std::min(1.0, (std::floor((most ? c : 1 - c) * 100) + 1) / 100);
    }
  }

 private:
  // Before anything is predicted: load and cache as they are reported. Stale endpoints stay
  // unscored.
  void Composite(const RequestContext& request, const Snapshot& snapshot,
                 std::span<const uint32_t> candidates, std::span<double> scores) const {
    double longest = 0;
    for (uint32_t c : candidates) {
      if (snapshot.waiting[c] > longest) longest = snapshot.waiting[c];
    }
    const Attribute* match = request.Get(s_.match);
    for (size_t i = 0; i < candidates.size(); ++i) {
      const uint32_t c = candidates[i];
      const double queue = longest > 0 ? (longest - snapshot.waiting[c]) / longest : 1;
      const double prefix = match && match->total > 0 ? match->per_endpoint[c] / match->total : 0;
      const double sum = s_.kv * (1 - snapshot.kv_usage[c]) + s_.queue * queue + s_.prefix * prefix;
      const double score = std::round(sum / (s_.kv + s_.queue + s_.prefix) * 100) / 100;
      if (std::isfinite(score)) scores[i] = std::clamp(score, 0.0, 1.0);
    }
  }

  const Settings s_;
};

StatusOr<std::unique_ptr<Plugin>> Make(PluginArgs& args) {
  Params params(args.parameters);
  Settings s;
  s.ttft = params.Double("ttftWeight", s.ttft, 0, 1e6);
  s.tpot = params.Double("tpotWeight", s.tpot, 0, 1e6);
  if (s.ttft + s.tpot <= 0) params.Fail("tpotWeight", "one of the two weights must be positive");
  // c must stay in [0, 1].
  const double sum = s.ttft + s.tpot;
  s.ttft /= sum;
  s.tpot /= sum;
  s.most = params.Choice("headroomSelectionStrategy", "least", {"least", "most"}) == "most";
  s.kv = params.Double("compositeKVWeight", 1, 0, 1e6);
  s.queue = params.Double("compositeQueueWeight", 1, 0, 1e6);
  s.prefix = params.Double("compositePrefixWeight", 1, 0, 1e6);
  if (s.kv + s.queue + s.prefix <= 0)
    params.Fail("compositeKVWeight", "one of the composite weights must be positive");
  s.latency = args.env.Consume("LatencyPredictionInfo",
                               params.String("latencyPredictionInfoProducerName", ""), true);
  s.match = args.env.Consume("PrefixCacheMatchInfo",
                             params.String("prefixMatchInfoProducerName", ""), true);
  return Done(params, std::make_unique<LatencyScorer>(s));
}

}  // namespace

Status RegisterLatencyScorer(PluginRegistry& registry) {
  return AddPlugin(
      registry,
      {.type = "latency-scorer",
       .kind = "scorer",
       .help = "Prefers endpoints by the headroom between predicted latency and SLO; without an "
               "SLO, the fastest.",
       .params = {{"ttftWeight", "0.8", "share of the TTFT headroom"},
                  {"tpotWeight", "0.2", "share of the TPOT headroom"},
                  {"headroomSelectionStrategy", "least",
                   "among endpoints that meet the SLOs: least fills them up, most spreads"},
                  {"compositeKVWeight", "1", "share of free KV cache before predictions exist"},
                  {"compositeQueueWeight", "1", "share of the relative queue, likewise"},
                  {"compositePrefixWeight", "1", "share of the matched prefix, likewise"},
                  {"latencyPredictionInfoProducerName", "predicted-latency-producer",
                   "whose predictions to read"},
                  {"prefixMatchInfoProducerName", "approx-prefix-cache-producer",
                   "whose matches to read"}},
       .make = Make});
}

}  // namespace llmd::sched
