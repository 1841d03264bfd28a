// InFlightLoad and UncachedRequestTokens (docs/reference/producers.md): what the ledger holds, and
// the tokens this plugin books in it.
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
                                   public InFlightTokens {
 public:
  InflightLoadProducer(Settings settings, std::shared_ptr<const LedgerColumn> column,
                       PluginArgs& args)
      : s_(settings), ledger_(args.env.ledger), column_(std::move(column)) {
    Show(args, "requests", "Requests on their way or being answered", 0);
    Show(args, "tokens", "Their uncached prompt tokens, and an estimate of the answer if asked for",
         1);
  }

  Status Produce(RequestContext& request, const Snapshot& snapshot) override {
    Attribute& load = request.Put(s_.load);
    load.per_endpoint.resize(snapshot.size());
    load.second.resize(snapshot.size());
    for (size_t i = 0; i < snapshot.size(); ++i) {
      const InFlightAccount& account = snapshot.set->lives[i]->account();
      load.per_endpoint[i] = account.requests();
      load.second[i] = account.Tokens(*column_);
    }
    Attribute& uncached = request.Put(s_.uncached);
    uncached.per_endpoint.resize(snapshot.size());
    const Attribute* prompt = request.Get(s_.tokens);
    const Attribute* match = request.Get(s_.match);
    const double input = prompt ? static_cast<double>(prompt->tokens.size()) : 0;
    const double output = OutputTokens(request, input);
    for (size_t i = 0; i < snapshot.size(); ++i) {
      const double cached = match ? match->CachedTokens(i) : 0;
      uncached.per_endpoint[i] = std::max(0.0, input - cached) + output;
    }
    return OkStatus();
  }

  void PreRequest(RequestContext& request, const Snapshot& snapshot, const ScheduleOutcome& outcome,
                  HeaderList&) override {
    if (!outcome.primary.empty()) Book(request, snapshot, outcome.primary[0], Stage::kAnswer);
    if (!outcome.prefill.empty()) Book(request, snapshot, outcome.prefill[0], Stage::kPrefill);
    if (!outcome.encode.empty()) Book(request, snapshot, outcome.encode[0], Stage::kEncode);
  }
  // The ledger closes by itself; the page's rows follow it.
  void OnFirstChunk(RequestContext& request, const ResponseInfo&) override {
    ForOpen(request, [&](const RequestCharges::Charge& charge, const RequestCharges::Entry& entry) {
      if (!entry.open || entry.until == Until::kEnd) return;
      flows_->End(entry.mark, charge.sent, charge.stage == Stage::kAnswer ? 0 : 1, entry.tokens());
    });
  }
  void OnEnd(RequestContext& request, const ResponseInfo&) override {
    ForOpen(request, [&](const RequestCharges::Charge& charge, const RequestCharges::Entry& entry) {
      flows_->End(entry.mark, charge.sent, charge.open ? 1 : 0, entry.open ? entry.tokens() : 0);
    });
  }
  bool wants_body() const override { return true; }
  json::Value State(const EndpointSet& endpoints) const override {
    json::Object out;
    for (size_t i = 0; i < endpoints.size(); ++i) {
      const InFlightAccount& account = endpoints.lives[i]->account();
      out.emplace_back(endpoints.names[i], json::Object{{"requests", account.requests()},
                                                        {"tokens", account.Tokens(*column_)}});
    }
    return out;
  }
  void OnEndpointGone(const EndpointInfo& endpoint, uint32_t) override { flows_->Forget(endpoint); }
  // The ledger keeps the counts; what is handed over is their parts by flow, which only the page
  // shows, and the column of one of another name.
  void Inherit(Plugin& old) override {
    auto& before = dynamic_cast<InflightLoadProducer&>(old);
    ledger_->Succeed(column_, before.column_);
    const std::lock_guard lock(inherit_mutex_);
    flows_ = before.flows_;
  }
  const LedgerColumn& tokens_in_flight() const override { return *column_; }

 private:
  using Until = RequestCharges::Until;

  void Show(PluginArgs& args, const char* what, const char* help, int which) {
    gauges_.push_back(args.env.metrics->AddGaugeCollector(
        "llm_d_epp_inflight_" + std::string(what), help,
        [this, which, name = args.name](const MetricsRegistry::GaugeEmit& emit) {
          std::shared_ptr<InflightFlows> flows;
          {
            const std::lock_guard lock(inherit_mutex_);
            flows = flows_;
          }
          flows->ForEach([&](const EndpointInfo& e, const InflightFlows::Flow& flow,
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
  double MediaTokens(const RequestContext& request) const {
    const Attribute* prompt = request.Get(s_.tokens);
    double tokens = 0;
    if (prompt == nullptr) return tokens;
    for (const MediaItem& item : prompt->media) tokens += static_cast<double>(item.length);
    return tokens;
  }
  void Book(RequestContext& request, const Snapshot& snapshot, uint32_t endpoint, Stage stage) {
    const size_t charge = request.charges.Find(stage);
    if (charge == kNoCharge) return;
    const Attribute* uncached = request.Get(s_.uncached);
    // The encoder computes its media only.
    const double tokens = stage == Stage::kEncode ? MediaTokens(request)
                          : uncached              ? uncached->per_endpoint[endpoint]
                                                  : 0;
    const uint64_t flow = flows_->Of(request.fairness_id, request.priority);
    // Without an estimate of the output nothing is left once the answer begins.
    request.charges.Book(column_, charge, tokens,
                         stage != Stage::kAnswer || !s_.output ? Until::kFirstChunk : Until::kEnd,
                         flow);
    flows_->Start(flow, snapshot.set->lives[endpoint]->id(), snapshot.set->infos[endpoint],
                  request.charges.entries().back().tokens());
  }
  // Of the entries of this plugin with anything still open.
  template <typename Each>
  void ForOpen(const RequestContext& request, Each each) const {
    for (const RequestCharges::Entry& entry : request.charges.entries()) {
      if (entry.column != column_) continue;
      const RequestCharges::Charge& charge = request.charges.all()[entry.charge];
      if (entry.open || charge.open) each(charge, entry);
    }
  }

  const Settings s_;
  const std::shared_ptr<InFlightLedger> ledger_;
  std::shared_ptr<const LedgerColumn> column_;  // of the tokens
  // Shared with the one this replaced, which still ends the requests it booked.
  std::shared_ptr<InflightFlows> flows_ = std::make_shared<InflightFlows>();
  std::mutex inherit_mutex_;  // a page may be read while a reload hands flows_ over
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
  LLMD_ASSIGN_OR_RETURN(std::shared_ptr<const LedgerColumn> column, TakeColumn(args));
  return Done(params, std::make_unique<InflightLoadProducer>(s, std::move(column), args));
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
