#include <algorithm>

#include "llmd/sched/decider.h"
#include "plugins/builtin.h"
#include "plugins/common.h"

namespace llmd::sched {
namespace {

class AlwaysDisagg final : public Decider {
 public:
  bool Disaggregate(RequestContext&, const Snapshot&, int) override { return true; }
};

class NeverDisagg final : public Decider {
 public:
  bool Disaggregate(RequestContext&, const Snapshot&, int) override { return false; }
};

// Disaggregates when enough of the prompt is not cached on the decode endpoint
// (docs/reference/profile-handlers.md).
class PrefixBasedDecider final : public Decider {
 public:
  PrefixBasedDecider(double non_cached, double prompt, DataKey tokens, DataKey match)
      : non_cached_(non_cached), prompt_(prompt), tokens_(tokens), match_(match) {}

  bool Disaggregate(RequestContext& request, const Snapshot&, int decode) override {
    const Attribute* prompt = request.Get(tokens_);
    if (non_cached_ <= 0 || prompt == nullptr) return false;
    const double input = static_cast<double>(prompt->tokens.size());
    if (input < prompt_ || input < non_cached_) return false;
    const Attribute* match = request.Get(match_);
    double cached = 0;
    if (match && decode >= 0)
      cached = std::min(input, match->CachedTokens(static_cast<size_t>(decode)));
    return input - cached >= non_cached_;
  }

 private:
  const double non_cached_, prompt_;
  const DataKey tokens_, match_;
};

StatusOr<std::unique_ptr<Plugin>> MakePrefixBased(PluginArgs& args) {
  Params params(args.parameters);
  const double non_cached = static_cast<double>(params.Int("nonCachedTokens", 0, 0, INT32_MAX));
  const double prompt = static_cast<double>(params.Int("promptTokens", 0, 0, INT32_MAX));
  const DataKey tokens = args.env.Consume("TokenizedPrompt", "", true);
  const DataKey match = args.env.Consume("PrefixCacheMatchInfo",
                                         params.String("prefixMatchInfoProducerName", ""), true);
  return Done(params, std::make_unique<PrefixBasedDecider>(non_cached, prompt, tokens, match));
}

}  // namespace

Status RegisterPdDeciders(PluginRegistry& registry) {
  LLMD_RETURN_IF_ERROR(AddPlugin(registry, {.type = "always-disagg-pd-decider",
                                            .kind = "decider",
                                            .help = "Every request is prefilled elsewhere.",
                                            .make = Simple<AlwaysDisagg>()}));
  LLMD_RETURN_IF_ERROR(AddPlugin(
      registry, {.type = "never-disagg-pd-decider",
                 .kind = "decider",
                 .help = "No request is prefilled elsewhere; a switch to leave in a file.",
                 .make = Simple<NeverDisagg>()}));
  return AddPlugin(
      registry,
      {.type = "prefix-based-pd-decider",
       .kind = "decider",
       .help = "Prefills elsewhere when enough of the prompt is not cached on the decode endpoint.",
       .params = {{"nonCachedTokens", "0", "uncached tokens from which it pays; 0 = never"},
                  {"promptTokens", "0", "shorter prompts stay; 0 = no gate"},
                  {"prefixMatchInfoProducerName", "approx-prefix-cache-producer",
                   "whose matches to read"}},
       .make = MakePrefixBased});
}

}  // namespace llmd::sched
