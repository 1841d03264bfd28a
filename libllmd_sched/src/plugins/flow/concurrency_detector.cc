// Formula: docs/reference/flow-control.md: own requests (or tokens) in flight over capacity.
#include <algorithm>
#include <cmath>

#include "llmd/sched/filter.h"
#include "llmd/sched/saturation.h"
#include "plugins/builtin.h"
#include "plugins/common.h"
#include "plugins/producer/inflight.h"

namespace llmd::sched {
namespace {

struct Settings {
  double requests = 0, tokens = 0, headroom = 0;
  bool by_requests = true, by_tokens = false;
  const InFlightTokens* counts = nullptr;
};

class ConcurrencyDetector final : public SaturationDetector, public Filter {
 public:
  explicit ConcurrencyDetector(Settings settings) : s_(settings) {}

  double Saturation(const Snapshot& snapshot, const std::vector<uint32_t>& candidates) override {
    if (candidates.empty()) return 1;
    double sum = 0;
    for (uint32_t c : candidates) sum += Of(*snapshot.set->lives[c]);
    return sum / static_cast<double>(candidates.size());
  }
  double PerRequest(const Snapshot&, const std::vector<uint32_t>& candidates) const override {
    return s_.by_tokens ? INFINITY : 1 / (s_.requests * static_cast<double>(candidates.size()));
  }
  TimePoint ChangesAt(const Snapshot&, TimePoint) const override { return TimePoint::max(); }
  // Our own counts fall with the request's end; what is left is the time of the callers.
  Duration ReactionTime(Duration) const override { return std::chrono::milliseconds(10); }
  void Keep(RequestContext&, const Snapshot& snapshot, std::vector<uint32_t>& candidates) override {
    std::erase_if(candidates,
                  [&](uint32_t c) { return Of(*snapshot.set->lives[c]) >= 1 + s_.headroom; });
  }
  bool drops_saturated() const override { return true; }

 private:
  double Of(const EndpointLife& life) const {
    const InFlightAccount& account = life.account();
    const double requests = s_.by_requests ? account.requests() / s_.requests : 0;
    const double tokens =
        s_.by_tokens ? account.Tokens(s_.counts->tokens_in_flight()) / s_.tokens : 0;
    return std::max(requests, tokens);
  }
  const Settings s_;
};

StatusOr<std::unique_ptr<Plugin>> Make(PluginArgs& args) {
  Params params(args.parameters);
  Settings s;
  s.requests = static_cast<double>(params.Int("maxConcurrency", 100, 1, INT32_MAX));
  s.tokens = static_cast<double>(params.Int("maxTokenConcurrency", 1'000'000, 1, int64_t{1} << 50));
  s.headroom = params.Double("headroom", 0, 0, 1000);
  const std::string mode =
      params.Choice("concurrencyMode", "requests", {"requests", "tokens", "hybrid"});
  s.by_requests = mode != "tokens";
  s.by_tokens = mode != "requests";
  const std::string producer = params.String("inFlightLoadProducerName", "inflight-load-producer");
  LLMD_ASSIGN_OR_RETURN(Plugin* const plugin, args.env.Dependency(producer));
  s.counts = dynamic_cast<const InFlightTokens*>(plugin);
  if (s.counts == nullptr)
    params.Fail("inFlightLoadProducerName", "plugin '" + producer + "' counts nothing in flight");
  return Done(params, std::make_unique<ConcurrencyDetector>(s));
}

}  // namespace

Status RegisterConcurrencyDetector(PluginRegistry& registry) {
  return AddPlugin(
      registry,
      {.type = "concurrency-detector",
       .kind = "saturation detector, filter",
       .help =
           "Saturation from our own requests in flight; as a filter it may return nothing (429).",
       .params = {{"maxConcurrency", "100", "requests an endpoint takes"},
                  {"concurrencyMode", "requests", "or tokens, or hybrid (the higher of the two)"},
                  {"maxTokenConcurrency", "1000000", "tokens an endpoint takes"},
                  {"headroom", "0", "as a filter: how far over full an endpoint may be"},
                  {"inFlightLoadProducerName", "inflight-load-producer", "whose counts to read"}},
       .make = Make});
}

}  // namespace llmd::sched
