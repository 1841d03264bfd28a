// LatencyPredictionInfo (docs/reference/predicted-latency.md) from a model in this process, which
// learns from the answers as they pass. What it costs is one copy of the weights per class and two
// dot products per endpoint.
#include <cmath>
#include <filesystem>
#include <memory>

#include "latency/headroom.h"
#include "latency/model.h"
#include "latency/state_file.h"
#include "llmd/sched/hooks.h"
#include "llmd/sched/producer.h"
#include "plugins/builtin.h"
#include "plugins/common.h"
#include "plugins/producer/latency_metrics.h"

namespace llmd::sched {
namespace {

struct Settings {
  double slo_buffer_factor = 1;
  Duration context_ttl = std::chrono::minutes(5);
  bool streaming = false, predict = true;
  std::string role_label, state_path;
  DataKey out = kNoKey, tokens = kNoKey, match = kNoKey, encoder = kNoKey;
  // Of the ledger: tokens of prompts being computed, and of answers being decoded.
  std::shared_ptr<const LedgerColumn> prefill, decode;
};

double Millis(Duration d) {
  return std::chrono::duration<double, std::milli>(d).count();
}

// The label values that tell one kind of endpoint from another.
std::string ClassLabel(const EndpointInfo& info, const std::string& role_label) {
  const auto label = [&](const std::string& key) {
    const auto it = info.labels.find(key);
    return it == info.labels.end() ? std::string() : it->second;
  };
  std::string engine = label("llm-d.ai/engine-type");
  if (engine.empty()) engine = label("inference.networking.k8s.io/engine-type");
  return (role_label.empty() ? "" : label(role_label)) + "/" + (engine.empty() ? "vllm" : engine);
}

struct Kind {
  uint8_t model_class = 0;
  bool prefill_only = false;
};

class PredictedLatencyProducer final : public Producer,
                                       public PreRequestHook,
                                       public ResponseHook,
                                       public Successor {
 public:
  PredictedLatencyProducer(Settings settings, const PluginEnv& env)
      : s_(std::move(settings)),
        clock_(*env.clock),
        logger_(env.logger),
        metrics_(*env.metrics),
        model_(std::make_shared<latency::LatencyModel>(s_.streaming)) {
    if (s_.state_path.empty()) return;
    const Status status = latency::LoadModel(s_.state_path, model_.get());
    if (!status.ok() && status.code() != StatusCode::kNotFound)
      logger_.Warn("the saved latency model is ignored", {{"error", status.message()}});
    keeper_ = std::make_unique<latency::StateKeeper>(model_, s_.state_path, logger_);
  }

  // What was learned goes on under other parameters; a model of the other mode is of no use.
  void Inherit(Plugin& old) override {
    auto* before = dynamic_cast<PredictedLatencyProducer*>(&old);
    if (before == nullptr || before->s_.streaming != s_.streaming) return;
    model_ = before->model_;
    if (keeper_) keeper_ = std::make_unique<latency::StateKeeper>(model_, s_.state_path, logger_);
  }

  Status Produce(RequestContext& request, const Snapshot& snapshot) override {
    if (!s_.predict || snapshot.size() == 0) return OkStatus();
    std::vector<LatencyPrediction>& out = request.Put(s_.out).latency;
    out.assign(snapshot.size(), {});
    static thread_local std::vector<LatencyFeatures> features;
    static thread_local std::vector<double> tightest;
    features.resize(snapshot.size());
    tightest.resize(snapshot.size());
    for (size_t i = 0; i < out.size(); ++i) {
      const InFlightAccount& account = snapshot.set->lives[i]->account();
      features[i] = FeaturesOf(request, snapshot, i);
      out[i].dispatched = account.requests();
      tightest[i] = account.tightest_tpot_ms();
    }
    const auto kinds = KindsOf(snapshot);
    Predict(request, snapshot, *kinds, features, out);
    const latency::SloTerms slo{.ttft_ms = request.slo_ttft_ms,
                                .tpot_ms = request.slo_tpot_ms,
                                .waited_ms = Millis(clock_.Now() - request.received),
                                .factor = s_.slo_buffer_factor};
    for (size_t i = 0; i < out.size(); ++i) {
      const bool tpot = Streams(request) && !(*kinds)[i].prefill_only;
      latency::SetHeadroom(slo, tightest[i], tpot, out[i]);
    }
    return OkStatus();
  }

  void PreRequest(RequestContext& request, const Snapshot& snapshot, const ScheduleOutcome& outcome,
                  HeaderList&) override {
    if (outcome.primary.empty()) return;
    const bool split = !outcome.prefill.empty();
    Visit(request, snapshot, outcome.primary[0], false, split);
    if (split) Visit(request, snapshot, outcome.prefill[0], true, split);
  }

  void OnFirstChunk(RequestContext& request, const ResponseInfo& response) override {
    const TimePoint now = clock_.Now();
    for (LatencyVisit& v : request.visits) {
      if (v.owner != this || !v.open || v.decoding) continue;
      v.first_chunk = now;
      if (s_.streaming && Teaches(request, v, response, now))
        model_->LearnTtft(v.model_class, v.features, Millis(now - v.sent));
      if (s_.streaming && !v.prefill && Succeeded(response)) MeasuredTtft(request, now);
      if (v.prefill) {
        v.open = false;
      } else {
        request.charges.Book(s_.decode, v.charge, v.decode_tokens, Until::kEnd);
        v.decoding = true;
      }
    }
  }

  void OnEnd(RequestContext& request, const ResponseInfo& response) override {
    const TimePoint now = clock_.Now();
    for (LatencyVisit& v : request.visits) {
      if (v.owner != this) continue;
      if (!v.prefill && Succeeded(response) && !response.aborted)
        LearnAnswer(request, v, response, now);
      v.open = false;
    }
  }
  bool wants_body() const override { return true; }

 private:
  using Until = RequestCharges::Until;

  // TPOT is a matter of answers that arrive in pieces.
  bool Streams(const RequestContext& request) const { return s_.streaming && request.streaming; }
  static bool Succeeded(const ResponseInfo& response) {
    return response.status >= 200 && response.status < 300;
  }
  // An answer that came so late that something else than work held it up teaches nothing; nor does
  // one whose pieces do not tell what the model is about.
  bool Teaches(const RequestContext& request, const LatencyVisit& v, const ResponseInfo& response,
               TimePoint now) const {
    return Succeeded(response) && response.fallback == nullptr && now - v.sent <= s_.context_ttl &&
           (!s_.streaming || request.streaming);
  }

  std::shared_ptr<const std::vector<Kind>> KindsOf(const Snapshot& snapshot) {
    return kinds_.Get(snapshot.set, [this](const EndpointInfo& info) {
      const auto role = info.labels.find(
          std::string(s_.role_label.empty() ? kRoleLabel : std::string_view(s_.role_label)));
      return Kind{.model_class = model_->ClassOf(ClassLabel(info, s_.role_label)),
                  .prefill_only = role != info.labels.end() && role->second == "prefill"};
    });
  }

  LatencyFeatures FeaturesOf(const RequestContext& request, const Snapshot& snapshot,
                             size_t i) const {
    const InFlightAccount& account = snapshot.set->lives[i]->account();
    const Attribute* prompt = request.Get(s_.tokens);
    const Attribute* match = request.Get(s_.match);
    return {
        .kv_cache_percentage = snapshot.kv_usage[i],
        .input_token_length = prompt ? static_cast<double>(prompt->tokens.size()) : 0,
        .num_request_waiting = snapshot.waiting[i],
        .num_request_running = snapshot.running[i],
        .num_tokens_generated =
            request.max_tokens > 0 ? static_cast<double>(request.max_tokens) : 0,
        .prefix_cache_score = match && match->total > 0 ? match->per_endpoint[i] / match->total : 0,
        .prefill_tokens_in_flight = account.Tokens(*s_.prefill),
        .decode_tokens_in_flight = account.Tokens(*s_.decode),
        .encoder_tokens = EncoderTokens(request, i)};
  }
  double EncoderTokens(const RequestContext& request, size_t endpoint) const {
    const Attribute* prompt = request.Get(s_.tokens);
    const Attribute* encoded = request.Get(s_.encoder);
    if (prompt == nullptr || encoded == nullptr || encoded->total <= 0) return 0;
    double tokens = 0;
    for (const MediaItem& item : prompt->media) tokens += static_cast<double>(item.length);
    return tokens * (1 - encoded->per_endpoint[endpoint] / encoded->total);
  }

  // A page may lack a gauge.
  static bool Known(const Snapshot& snapshot, size_t i) {
    return !std::isnan(snapshot.waiting[i] + snapshot.running[i] + snapshot.kv_usage[i]);
  }

  void Predict(const RequestContext& request, const Snapshot& snapshot,
               const std::vector<Kind>& kinds, const std::vector<LatencyFeatures>& features,
               std::vector<LatencyPrediction>& out) {
    latency::Reader reader(*model_);
    const TimePoint started = clock_.Now();
    // What a stale endpoint is doing is not known.
    for (size_t i = 0; i < out.size(); ++i) {
      if (Known(snapshot, i)) out[i].ttft_ms = reader.Ttft(kinds[i].model_class, features[i]);
    }
    const TimePoint between = clock_.Now();
    LatencySeriesPair& series = metrics_.Of(request.model, request.target_model);
    series.ttft.Took(std::chrono::duration<double>(between - started).count());
    if (!Streams(request)) return;
    for (size_t i = 0; i < out.size(); ++i) {
      if (Known(snapshot, i)) out[i].tpot_ms = reader.Tpot(kinds[i].model_class, features[i]);
    }
    series.tpot.Took(std::chrono::duration<double>(clock_.Now() - between).count());
  }

  void Visit(RequestContext& request, const Snapshot& snapshot, uint32_t endpoint, bool prefill,
             bool split) {
    LatencyVisit v{.owner = this, .prefill = prefill};
    v.charge = request.charges.Find(prefill ? Stage::kPrefill : Stage::kAnswer);
    v.model_class = (*KindsOf(snapshot))[endpoint].model_class;
    v.features = FeaturesOf(request, snapshot, endpoint);
    const LatencyFeatures& f = v.features;
    // The prompt's work lies where it is computed.
    if (prefill || !split)
      v.prefill_tokens = std::round(f.input_token_length * (1 - f.prefix_cache_score));
    if (!prefill) v.decode_tokens = f.input_token_length;
    v.sent = clock_.Now();
    const Attribute* info = request.Get(s_.out);
    if (info) v.predicted = info->latency[endpoint];
    if (v.predicted.valid && !prefill) {
      LatencySeriesPair& series = metrics_.Of(request.model, request.target_model);
      series.ttft.Predicted(v.predicted.ttft_ms);
      if (std::isfinite(v.predicted.tpot_ms)) series.tpot.Predicted(v.predicted.tpot_ms);
    }
    request.charges.Book(s_.prefill, v.charge, v.prefill_tokens, Until::kFirstChunk);
    request.visits.push_back(v);
  }

  void MeasuredTtft(const RequestContext& request, TimePoint now) {
    metrics_.Of(request.model, request.target_model)
        .ttft.Measured(Millis(now - request.received), request.slo_ttft_ms);
  }

  void LearnAnswer(const RequestContext& request, const LatencyVisit& v,
                   const ResponseInfo& response, TimePoint now) {
    const bool teaches = Teaches(request, v, response, now);
    LatencyFeatures f = v.features;
    f.num_tokens_generated =
        static_cast<double>(std::max<int64_t>(response.usage.completion_tokens, 0));
    if (teaches) model_->LearnLength(v.model_class, f.num_tokens_generated);
    if (!s_.streaming) {
      MeasuredTtft(request, now);
      if (teaches) {
        for (const LatencyVisit& stage : request.visits) {
          if (stage.owner != this) continue;
          LatencyFeatures of_stage = stage.features;
          of_stage.num_tokens_generated = f.num_tokens_generated;
          model_->LearnTtft(stage.model_class, of_stage, Millis(now - stage.sent));
        }
      }
      return;
    }
    if (!request.streaming || !v.decoding || f.num_tokens_generated < 2) return;
    const double tpot = Millis(now - v.first_chunk) / (f.num_tokens_generated - 1);
    metrics_.Of(request.model, request.target_model).tpot.Measured(tpot, request.slo_tpot_ms);
    if (teaches) model_->LearnTpot(v.model_class, f, tpot);
  }

  const Settings s_;
  const Clock& clock_;
  const Logger logger_;
  LatencyMetrics metrics_;
  std::shared_ptr<latency::LatencyModel> model_;
  PerSet<Kind> kinds_;
  std::unique_ptr<latency::StateKeeper> keeper_;  // last: it saves the model as it goes
};

// The directory of `path` must be there: a model that can never be saved is a mistake to tell
// early.
void CheckStatePath(Params& params, const std::string& path) {
  if (path.empty()) return;
  std::error_code error;
  const std::filesystem::path parent = std::filesystem::path(path).parent_path();
  if (!parent.empty() && !std::filesystem::is_directory(parent, error))
    params.Fail("statePath", "'" + parent.string() + "' is no directory");
  if (std::filesystem::is_directory(path, error))
    params.Fail("statePath", "'" + path + "' is a directory, a file was expected");
}

StatusOr<std::unique_ptr<Plugin>> Make(PluginArgs& args) {
  Params params(args.parameters);
  Settings s;
  s.slo_buffer_factor = params.Double("sloBufferFactor", s.slo_buffer_factor, 1e-6, 1e6);
  s.context_ttl = params.Time("contextTTL", s.context_ttl);
  if (s.context_ttl == Duration::zero()) params.Fail("contextTTL", "expected more than 0s");
  s.streaming = params.Bool("streamingMode", false);
  s.predict = params.Bool("predictInProduce", true);
  s.role_label = params.String("endpointRoleLabel", "");
  s.state_path = params.String("statePath", "");
  CheckStatePath(params, s.state_path);
  for (const char* ignored : {"samplingMean", "maxDecodeTokenSamplesForPrediction"}) {
    if (!params.Has(ignored)) continue;
    params.Double(ignored, 0, 0, 1e18);
    args.env.Warn(std::string(ignored) + " has no effect: tokens are not sampled");
  }
  s.out = args.env.Produce("LatencyPredictionInfo");
  s.tokens = args.env.Consume("TokenizedPrompt", "", true);
  if (params.Bool("useEncoderCacheFeatures", false))
    s.encoder = args.env.Consume("EncoderCacheMatchInfo", "", true);
  s.match = args.env.Consume("PrefixCacheMatchInfo",
                             params.String("prefixMatchInfoProducerName", ""), true);
  LLMD_ASSIGN_OR_RETURN(s.prefill, TakeColumn(args, "/prefill"));
  LLMD_ASSIGN_OR_RETURN(s.decode, TakeColumn(args, "/decode"));
  LLMD_RETURN_IF_ERROR(params.Finish());
  return std::unique_ptr<Plugin>(std::make_unique<PredictedLatencyProducer>(s, args.env));
}

}  // namespace

Status RegisterPredictedLatencyProducer(PluginRegistry& registry) {
  return AddPlugin(
      registry,
      {.type = "predicted-latency-producer",
       .kind = "producer",
       .help = "Predicts time to first token and per token on each endpoint, from a model in this "
               "process that learns from every answer.",
       .params = {{"sloBufferFactor", "1", "factor of the TPOT limit"},
                  {"contextTTL", "5m", "an answer that takes longer teaches nothing"},
                  {"streamingMode", "false",
                   "true: TTFT ends with the first chunk and TPOT counts; false: TTFT is the whole "
                   "answer"},
                  {"endpointRoleLabel", "",
                   "label whose values are modelled apart; prefill endpoints have no TPOT"},
                  {"predictInProduce", "true", "false: learn only"},
                  {"useEncoderCacheFeatures", "false",
                   "true: media that an endpoint has yet to encode count"},
                  {"statePath", "", "file that keeps the model across restarts; \"\" = none"},
                  {"prefixMatchInfoProducerName", "approx-prefix-cache-producer",
                   "whose matches to read"},
                  {"samplingMean", "", "accepted with a warning: no effect"},
                  {"maxDecodeTokenSamplesForPrediction", "", "accepted with a warning: no effect"}},
       .make = Make});
}

}  // namespace llmd::sched
