// Formula: docs/reference/scorers.md: w·min(1, match·bs/S)² + (1 − w)·match/total.
#include <algorithm>

#include "llmd/sched/hooks.h"
#include "llmd/sched/scorer.h"
#include "plugins/builtin.h"
#include "plugins/common.h"
#include "trace/schedule_log.h"

namespace llmd::sched {
namespace {

class PrefixCacheScorer final : public Scorer, public PreRequestHook, public ResponseHook {
 public:
  PrefixCacheScorer(double weight, double scale, DataKey match, Logger logger)
      : weight_(weight), scale_(scale), match_(match), logger_(std::move(logger)) {}

  void Score(RequestContext& request, const Snapshot& snapshot,
             std::span<const uint32_t> candidates, std::span<double> scores) override {
    const Attribute* match = request.Get(match_);
    bool any = false;
    for (size_t i = 0; i < candidates.size(); ++i) {
      scores[i] =
          match && match->total > 0 ? ScoreOf(*match, match->per_endpoint[candidates[i]]) : 0.0;
      any = any || scores[i] > 0;
    }
    if (!request.log) return;
    const Logger log = request.log->Named(name());
    log.Log(LogLevel::kDebug, "Got pod scores",
            {{"scores", schedule_log::ScoreMap(snapshot, candidates, scores)}});
    if (!any) log.Log(LogLevel::kDebug, "No scores found for pods");
  }

  // The index itself is fed by the producer; these two are the documented lines of the scorer.
  void PreRequest(RequestContext& request, const Snapshot& snapshot, const ScheduleOutcome& outcome,
                  HeaderList&) override {
    schedule_log::LineWith(request, "Running post-schedule plugin", "plugin", *this);
    if (!logger_.Enabled(LogLevel::kInfo) || outcome.primary.empty()) return;
    logger_.Named(name()).Info("PostResponse called",
                               {{"x-request-id", request.request_id},
                                {"req", request.Describe(false)},
                                {"pod", snapshot.set->names[outcome.primary[0]]}});
  }
  void OnEnd(RequestContext& request, const ResponseInfo&) override {
    if (!logger_.Enabled(LogLevel::kDebug)) return;
    logger_.Named(name()).Log(LogLevel::kDebug, "Prefix aware scorer cleanup",
                              {{"x-request-id", request.request_id}, {"plugin", name()}});
  }

 private:
  double ScoreOf(const Attribute& match, double blocks) const {
    const double length = std::min(1.0, blocks * match.block_size / scale_);
    return weight_ * length * length + (1 - weight_) * blocks / match.total;
  }
  const double weight_, scale_;
  const DataKey match_;
  const Logger logger_;
};

}  // namespace

Status RegisterPrefixCacheScorer(PluginRegistry& registry) {
  return AddPlugin(
      registry,
      {.type = "prefix-cache-scorer",
       .kind = "scorer",
       .help = "Prefers endpoints that hold the beginning of the prompt in their cache.",
       .params = {{"prefixMatchInfoProducerName", "approx-prefix-cache-producer",
                   "whose matches to read"},
                  {"matchLengthWeight", "0", "share of the score given by the match's length"},
                  {"matchLengthScaleTokens", "8192", "length that gives the full share"}},
       .make = [](PluginArgs& args) -> StatusOr<std::unique_ptr<Plugin>> {
         Params params(args.parameters);
         const double weight = params.Double("matchLengthWeight", 0, 0, 1);
         const double scale =
             static_cast<double>(params.Int("matchLengthScaleTokens", 8192, 1, int64_t{1} << 40));
         const DataKey match = args.env.Consume(
             "PrefixCacheMatchInfo", params.String("prefixMatchInfoProducerName", ""), true);
         return Done(params,
                     std::make_unique<PrefixCacheScorer>(weight, scale, match, args.env.logger));
       }});
}

}  // namespace llmd::sched
