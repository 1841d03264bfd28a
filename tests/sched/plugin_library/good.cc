// A filter and a scorer that use what plugins may: parameters, JSON, logs, metrics, random numbers.
#include "llmd/format.h"
#include "llmd/sched/plugin_library.h"

namespace {

using namespace llmd::sched;

class LastLetterScorer final : public Scorer {
 public:
  LastLetterScorer(char best, llmd::Counter& runs) : best_(best), runs_(runs) {}
  void Score(RequestContext&, const Snapshot& snapshot, std::span<const uint32_t> candidates,
             std::span<double> scores) override {
    runs_.Add();
    for (size_t i = 0; i < candidates.size(); ++i)
      scores[i] = snapshot.info(candidates[i]).name.back() == best_ ? 1 : 0;
  }

 private:
  const char best_;
  llmd::Counter& runs_;
};

class HeaderFilter final : public Filter {
 public:
  void Keep(RequestContext& request, const Snapshot& snapshot,
            std::vector<uint32_t>& candidates) override {
    const std::string only = llmd::ToLower(request.Header("x-only"));
    if (only.empty()) return;
    std::erase_if(candidates, [&](uint32_t c) { return snapshot.info(c).name != only; });
  }
};

llmd::StatusOr<std::unique_ptr<Plugin>> MakeScorer(PluginArgs& args) {
  Params params(args.parameters);
  const std::string best = params.String("best", "a");
  if (best.size() != 1) params.Fail("best", "expected one letter");
  LLMD_RETURN_IF_ERROR(params.Finish());
  args.env.logger.Info("made", {{"best", best}});
  return std::unique_ptr<Plugin>(std::make_unique<LastLetterScorer>(
      best[0], args.env.metrics->AddCounter("last_letter_runs_total", "Runs")));
}

}  // namespace

LLMD_SCHED_PLUGIN_LIBRARY(registry) {
  LLMD_RETURN_IF_ERROR(AddPlugin(registry, {.type = "last-letter-scorer",
                                            .kind = "scorer",
                                            .help = "Prefers names that end with a letter.",
                                            .params = {{"best", "a", "that letter"}},
                                            .make = MakeScorer}));
  return AddPlugin(registry,
                   {.type = "header-only-filter",
                    .kind = "filter",
                    .help = "Keeps the endpoint that x-only names.",
                    .make = [](PluginArgs& args) -> llmd::StatusOr<std::unique_ptr<Plugin>> {
                      LLMD_RETURN_IF_ERROR(Params(args.parameters).Finish());
                      return std::unique_ptr<Plugin>(std::make_unique<HeaderFilter>());
                    }});
}
