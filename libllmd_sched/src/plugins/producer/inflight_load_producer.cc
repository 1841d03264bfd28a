// InFlightLoad and UncachedRequestTokens (docs/reference/producers.md). Charges travel with the
// request, so two requests with one x-request-id cannot spoil the counts; every charge ends when
// its request does.
#include "plugins/producer/inflight.h"

#include <algorithm>
#include <cmath>

#include "llmd/sched/hooks.h"
#include "llmd/sched/producer.h"
#include "plugins/builtin.h"
#include "plugins/common.h"
#include "plugins/producer/inflight_flows.h"

namespace llmd::sched {
namespace {

struct Settings {
  bool output = false;
  double ratio = 1.5, cap = 0;  // 0 = no cap
  DataKey load = kNoKey, uncached = kNoKey, tokens = kNoKey, match = kNoKey;
};

class InflightLoadProducer final : public Producer,
                                   public PreRequestHook,
                                   public ResponseHook,
                                   public EndpointObserver,
                                   public Successor,
                                   public Introspected,
                                   public InFlightCounts {
 public:
  InflightLoadProducer(Settings settings, PluginArgs& args) : s_(settings) {
    Show(args, "requests", "Requests on their way or being answered", 0);
    Show(args, "tokens", "Their uncached prompt tokens, and an estimate of the answer if asked for",
         1);
  }

  Status Produce(RequestContext& request, const Snapshot& snapshot) override {
    Attribute& load = request.Put(s_.load);
    load.per_endpoint.resize(snapshot.size());
    load.second.resize(snapshot.size());
    if (snapshot.size() > 0) counts_->slots.ReadAll(snapshot.set->slots, load);
    Attribute& uncached = request.Put(s_.uncached);
    uncached.per_endpoint.resize(snapshot.size());
    const Attribute* prompt = request.Get(s_.tokens);
    const Attribute* match = request.Get(s_.match);
    const double input = prompt ? static_cast<double>(prompt->tokens.size()) : 0;
    const double output = OutputTokens(request, input);
    for (size_t i = 0; i < snapshot.size(); ++i) {
      const double cached = match ? match->per_endpoint[i] * match->block_size : 0;
      uncached.per_endpoint[i] = std::max(0.0, input - cached) + output;
    }
    return OkStatus();
  }

  void PreRequest(RequestContext& request, const Snapshot& snapshot, const ScheduleOutcome& outcome,
                  HeaderList&) override {
    if (!outcome.primary.empty()) Charge(request, snapshot, outcome.primary[0], false);
    if (!outcome.prefill.empty()) Charge(request, snapshot, outcome.prefill[0], true);
  }
  void OnFirstChunk(RequestContext& request, const ResponseInfo&) override {
    for (sched::Charge& c : request.charges) {
      if (c.owner != this) continue;
      // Prefill is over; without an estimate of the output nothing else was counted.
      if (c.until_first_chunk || !s_.output) EndTokens(c);
      if (c.until_first_chunk) EndRequest(c);
    }
  }
  void OnEnd(RequestContext& request, const ResponseInfo&) override {
    for (sched::Charge& c : request.charges) {
      if (c.owner != this) continue;
      EndTokens(c);
      EndRequest(c);
    }
  }
  bool wants_body() const override { return true; }
  json::Value State(const EndpointSet& endpoints) const override {
    json::Object out;
    for (size_t i = 0; i < endpoints.size(); ++i) {
      const uint32_t slot = endpoints.slots[i];
      out.emplace_back(endpoints.names[i], json::Object{{"requests", counts_->slots.Requests(slot)},
                                                        {"tokens", counts_->slots.Tokens(slot)}});
    }
    return out;
  }
  void OnEndpointGone(const EndpointInfo&, uint32_t slot) override { counts_->flows.Forget(slot); }
  void Inherit(Plugin& old) override {
    const std::lock_guard lock(inherit_mutex_);
    counts_ = dynamic_cast<InflightLoadProducer&>(old).counts_;
  }

  double Requests(uint32_t slot) const override { return counts_->slots.Requests(slot); }
  double Tokens(uint32_t slot) const override { return counts_->slots.Tokens(slot); }

 private:
  void Show(PluginArgs& args, const char* what, const char* help, int which) {
    gauges_.push_back(args.env.metrics->AddGaugeCollector(
        "llm_d_epp_inflight_" + std::string(what), help,
        [this, which, name = args.name](const MetricsRegistry::GaugeEmit& emit) {
          std::shared_ptr<Counts> counts;
          {
            const std::lock_guard lock(inherit_mutex_);
            counts = counts_;
          }
          counts->flows.ForEach([&](const EndpointInfo& e, const InflightFlows::Flow& flow,
                                    double requests, double tokens) {
            emit({{"endpoint_name", e.name},
                  {"namespace", e.ns},
                  {"producer_name", name},
                  {"fairness_id", flow.fairness_id},
                  {"priority", flow.priority}},
                 which == 0 ? requests : tokens);
          });
        }));
  }
  double OutputTokens(const RequestContext& request, double input) const {
    if (!s_.output) return 0;
    double out = std::round(input * s_.ratio);
    if (request.max_tokens >= 0) out = std::min(out, static_cast<double>(request.max_tokens));
    return s_.cap > 0 ? std::min(out, s_.cap) : out;
  }
  void Charge(RequestContext& request, const Snapshot& snapshot, uint32_t endpoint, bool prefill) {
    const Attribute* uncached = request.Get(s_.uncached);
    sched::Charge c{.owner = this,
                    .slot = snapshot.set->slots[endpoint],
                    .tokens = uncached ? uncached->per_endpoint[endpoint] : 0,
                    .until_first_chunk = prefill,
                    .mark = counts_->flows.Of(request.fairness_id, request.priority)};
    counts_->slots.Add(c.slot, 1, c.tokens);
    counts_->flows.Start(c.mark, c.slot, snapshot.set->infos[endpoint], c.tokens);
    request.charges.push_back(c);
  }
  void EndTokens(sched::Charge& c) {
    if (std::exchange(c.tokens_open, false)) Release(c, 0, c.tokens);
  }
  void EndRequest(sched::Charge& c) {
    if (std::exchange(c.request_open, false)) Release(c, 1, 0);
  }
  void Release(const sched::Charge& c, double requests, double tokens) {
    counts_->slots.Add(c.slot, -requests, -tokens);
    counts_->flows.End(c.mark, c.slot, requests, tokens);
  }

  struct Counts {
    SlotCounters slots;   // what decisions read
    InflightFlows flows;  // the same by flow, for the metrics page
  };
  const Settings s_;
  // Shared with the one this replaced, which still ends the requests it charged.
  std::shared_ptr<Counts> counts_ = std::make_shared<Counts>();
  std::mutex inherit_mutex_;  // a page may be read while a reload hands counts_ over
  std::vector<std::shared_ptr<const void>> gauges_;  // end before what they read
};

StatusOr<std::unique_ptr<Plugin>> Make(PluginArgs& args) {
  Params params(args.parameters);
  Settings s;
  s.output = params.Bool("addEstimatedOutputTokens", false);
  s.ratio = params.Double("outputRatio", 1.5, 0, 1e6);
  s.cap = static_cast<double>(params.Int("maxEstimatedOutputTokens", 0, 0, INT32_MAX));
  if (params.Bool("syncCrossReplicaState", false)) {
    args.env.Warn("syncCrossReplicaState has no effect: replicas do not share state");
  }
  s.load = args.env.Produce("InFlightLoad");
  s.uncached = args.env.Produce("UncachedRequestTokens");
  s.tokens = args.env.Consume("TokenizedPrompt", "", true);
  s.match = args.env.Consume("PrefixCacheMatchInfo",
                             params.String("prefixMatchInfoProducerName", ""), false);
  return Done(params, std::make_unique<InflightLoadProducer>(s, args));
}

}  // namespace

Status RegisterInflightLoadProducer(PluginRegistry& registry) {
  return AddPlugin(registry,
                   {.type = "inflight-load-producer",
                    .kind = "producer",
                    .help = "Counts this picker's requests and tokens in flight per endpoint.",
                    .params = {{"addEstimatedOutputTokens", "false",
                                "count an estimate of the answer too, until its end"},
                               {"outputRatio", "1.5", "estimated output tokens per input token"},
                               {"maxEstimatedOutputTokens", "", "upper bound of the estimate"},
                               {"prefixMatchInfoProducerName", "approx-prefix-cache-producer",
                                "whose matches to subtract, if any"},
                               {"syncCrossReplicaState", "false",
                                "true gives a warning: replicas do not share state"}},
                    .make = Make});
}

}  // namespace llmd::sched
