#include "director/request_metrics.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <set>
#include <tuple>

#include "director/metric_names.h"

namespace llmd::sched {
namespace {

const std::vector<double> kLatency = {
    .005, .025, .05, .1, .2, .4,  .6,  .8,  1,   1.25, 1.5, 2,   3,   4,    5,    6,    8,   10,
    15,   20,   30,  45, 60, 120, 180, 240, 300, 360,  480, 600, 900, 1200, 1800, 2700, 3600};
const std::vector<double> kTtft(kLatency.begin(), kLatency.begin() + 24);
const std::vector<double> kTokens = {1,     8,      16,     32,     64,     128,   256,
                                     512,   1024,   2048,   4096,   8192,   16384, 32778,
                                     65536, 131072, 262144, 524288, 1048576};
const std::vector<double> kOutput(kTokens.begin(), kTokens.begin() + 12);
const std::vector<double> kResponseSize = {1,    8,    16,   32,   64,    128,   256,  512,
                                           1024, 2048, 4096, 8192, 16384, 32778, 65536};
const std::vector<double> kFast = {.0001, .0002, .0005, .001, .002, .005, .01, .02, .05, .1};
const std::vector<double> kProcessing = {.0005, .001, .002, .005, .01, .015, .025, .04,
                                         .06,   .1,   .25,  .5,   1,   2.5,  5,    10};
const std::vector<double> kResponding = {.0001, .00025, .0005, .001, .0025, .005, .01, .025,
                                         .05,   .1,     .25,   .5,   1,     2.5,  5};
const std::vector<double> kNtpot = {.001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10};
const std::vector<double> kTpot = {.0005, .00205, .005, .01, .02, .04, .06, .08, .1, .125,
                                   .15,   .2,     .3,   .4,  .5,  .6,  .8,  1,   2};
const std::vector<double> kItl = {.001, .005, .01, .02, .04, .06, .08, .1,
                                  .15,  .2,   .3,  .5,  .75, 1,   2};

std::vector<double> RequestSizes() {
  std::vector<double> out;
  for (double b = 64; b <= (1 << 30); b *= 2) out.push_back(b);
  return out;
}

struct Moments {
  double mean = 0, deviation = 0;
};
// Over the endpoints that are known.
Moments MomentsOf(const std::vector<double>& values) {
  Moments m;
  const auto known = [](double v) { return !std::isnan(v); };
  const double n = static_cast<double>(std::count_if(values.begin(), values.end(), known));
  for (double v : values) m.mean += known(v) ? v / n : 0;
  for (double v : values) m.deviation += known(v) ? (v - m.mean) * (v - m.mean) / n : 0;
  m.deviation = std::sqrt(m.deviation);
  return m;
}

constexpr char kErrorTotal[] = "llm_d_epp_request_error_total";
constexpr char kErrorHelp[] = "Requests refused here or failed by the model server";
Labels ErrorLabels(std::string_view model, std::string_view target, std::string_view fairness,
                   std::string_view priority, std::string_view code) {
  return {{"model_name", std::string(model)},
          {"target_model_name", std::string(target)},
          {"fairness_id", std::string(fairness)},
          {"priority", std::string(priority)},
          {"error_code", std::string(code)}};
}

constexpr char kAttemptsTotal[] = "llm_d_epp_scheduler_attempts_total";
constexpr char kAttemptsHelp[] = "Scheduling attempts";
Labels AttemptLabels(std::string_view status, std::string_view target, std::string_view endpoint,
                     std::string_view ns, std::string_view port) {
  return {{"status", std::string(status)},
          {"target_model_name", std::string(target)},
          {"endpoint_name", std::string(endpoint)},
          {"namespace", std::string(ns)},
          {"port", std::string(port)}};
}

constexpr char kDisaggTotal[] = "llm_d_epp_disagg_decision_total";
constexpr char kDisaggHelp[] = "Decisions by the stages they use";
Labels DisaggLabels(std::string_view name, std::string_view type, std::string_view model,
                    std::string_view decision) {
  return {{"plugin_name", std::string(name)},
          {"plugin_type", std::string(type)},
          {"model_name", std::string(model)},
          {"decision_type", std::string(decision)}};
}

constexpr char kRewritesTotal[] = "llm_d_epp_model_rewrite_decisions_total";
constexpr char kRewritesHelp[] = "Model names replaced by a rewrite rule";
Labels RewriteLabels(std::string_view rule, std::string_view model, std::string_view target) {
  return {{"model_rewrite_name", std::string(rule)},
          {"model_name", std::string(model)},
          {"target_model", std::string(target)}};
}

std::string KeyOf(const Labels& labels) {
  std::string key;
  for (const auto& [name, value] : labels) key.append(value).push_back('\n');
  return key;
}

// A number as text, without allocation.
class Digits {
 public:
  explicit Digits(int value) {
    size_ = static_cast<size_t>(std::to_chars(text_, text_ + sizeof(text_), value).ptr - text_);
  }
  std::string_view text() const { return {text_, size_}; }

 private:
  char text_[16];
  size_t size_;
};

Counter& Reloads(MetricsRegistry& registry, const std::string& pool, const char* result) {
  return registry.AddCounter("llm_d_epp_config_reloads_total",
                             "Reads of the configuration after the first",
                             {{"name", pool}, {"result", result}});
}

}  // namespace

RequestMetrics::RequestMetrics(MetricsRegistry& registry, std::string pool)
    : scheduling(registry.AddHistogram("llm_d_epp_scheduler_e2e_duration_seconds",
                                       "Time spent scheduling a request", kFast)),
      processing(registry.AddHistogram(
          "llm_d_epp_request_processing_duration_seconds",
          "Time from a request's last byte to its routing, queueing included", kProcessing)),
      responding(registry.AddHistogram("llm_d_epp_response_processing_duration_seconds",
                                       "Time spent on an answer, all its pieces together",
                                       kResponding)),
      registry_(registry),
      pool_(std::move(pool)),
      reloads_ok_(Reloads(registry, pool_, "success")),
      reloads_failed_(Reloads(registry, pool_, "failure")) {
  AddOldNames(registry);
  MakeZeros();
  collectors_.push_back(registry_.AddCounterCollector(
      kAttemptsTotal, kAttemptsHelp, [this](const auto& emit) { EmitAttempts(emit); }));
}

// Every family shows from the start; an empty label reads as an absent one.
void RequestMetrics::MakeZeros() {
  (void)Make(
      {{"model_name", ""}, {"target_model_name", ""}, {"fairness_id", ""}, {"priority", ""}});
  (void)registry_.AddCounter(kErrorTotal, kErrorHelp, ErrorLabels("", "", "", "", ""));
  (void)registry_.AddCounter(kAttemptsTotal, kAttemptsHelp, AttemptLabels("", "", "", "", ""));
  (void)registry_.AddCounter(kDisaggTotal, kDisaggHelp, DisaggLabels("", "", "", ""));
  (void)registry_.AddCounter(kRewritesTotal, kRewritesHelp, RewriteLabels("", "", ""));
  // By construction nothing reads or writes a key it did not declare: keys come from declarations.
  (void)registry_.AddCounter(
      "llm_d_epp_plugin_data_scope_violations_total", "Uses of data a plugin did not declare",
      {{"extension_point", ""}, {"plugin_type", ""}, {"plugin_name", ""}, {"access", ""}});
}

RequestSeries RequestMetrics::Make(const Labels& labels) {
  const auto histogram = [&](const char* name, const char* help, const std::vector<double>& bounds,
                             const Labels& l) {
    return &registry_.AddHistogram("llm_d_epp_" + std::string(name), help, bounds, l);
  };
  Labels plain = labels, streaming = labels;
  plain.emplace_back("streaming", "false");
  streaming.emplace_back("streaming", "true");
  RequestSeries s{};
  s.total = &registry_.AddCounter("llm_d_epp_request_total", "Requests routed", labels);
  s.running = &registry_.AddGauge("llm_d_epp_request_running", "Requests being answered", labels);
  s.duration =
      histogram("request_duration_seconds",
                "Time from a request's arrival to the end of its answer", kLatency, labels);
  s.size = histogram("request_size_bytes", "Bytes of request bodies", RequestSizes(), labels);
  s.response_size = histogram("response_size_bytes", "Bytes of answers", kResponseSize, labels);
  s.input = histogram("request_input_tokens", "Prompt tokens by usage", kTokens, labels);
  s.output = histogram("request_output_tokens", "Answer tokens by usage", kOutput, labels);
  s.cached = histogram("request_cached_tokens", "Prompt tokens served from cache by usage", kTokens,
                       labels);
  s.ntpot = histogram("request_ntpot_seconds", "Duration over answer tokens", kNtpot, labels);
  s.ttft = histogram("request_ttft_seconds", "Time to the first byte of the answer's body", kTtft,
                     plain);
  s.ttft_streaming = histogram("request_ttft_seconds",
                               "Time to the first byte of the answer's body", kTtft, streaming);
  s.tpot = histogram("request_streaming_tpot_seconds", "Time per answer token after the first",
                     kTpot, labels);
  s.itl = histogram("request_streaming_itl_seconds", "Time between body chunks", kItl, labels);
  return s;
}

const RequestSeries& RequestMetrics::Of(const std::string& model, const std::string& target,
                                        const std::string& fairness, int priority) {
  const Digits digits(priority);
  return by_request_.Of({model, target, fairness, digits.text()}, [&]() -> const RequestSeries& {
    Labels labels = {{"model_name", models_.Fold(model)},
                     {"target_model_name", models_.Fold(target)},
                     {"fairness_id", fairness_.Fold(fairness)},
                     {"priority", std::string(digits.text())}};
    std::lock_guard lock(mutex_);
    if (series_.size() >= kMaxSeries && !series_.contains(KeyOf(labels))) {
      for (auto& [name, value] : labels) value = "other";
    }
    std::unique_ptr<RequestSeries>& series = series_[KeyOf(labels)];
    if (!series) series = std::make_unique<RequestSeries>(Make(labels));
    return *series;
  });
}

void RequestMetrics::Error(const RequestContext& request, int http_status) {
  const Digits code(http_status), priority(request.priority);
  errors_
      .Of({request.model, request.target_model, request.fairness_id, priority.text(), code.text()},
          [&]() -> Counter& {
            return registry_.AddCounter(kErrorTotal, kErrorHelp,
                                        BoundedErrorLabels(request, priority.text(), code.text()));
          })
      .Add();
}

Labels RequestMetrics::BoundedErrorLabels(const RequestContext& request, std::string_view priority,
                                          std::string_view code) {
  Labels labels = ErrorLabels(models_.Fold(request.model), models_.Fold(request.target_model),
                              fairness_.Fold(request.fairness_id), priority, code);
  std::string key = KeyOf(labels);
  std::lock_guard lock(mutex_);
  if (error_keys_.contains(key)) return labels;
  if (error_keys_.size() >= kMaxErrors)
    return ErrorLabels("other", "other", "other", "other", code);
  error_keys_.insert(std::move(key));
  return labels;
}

void RequestMetrics::FailedAttempt(const std::string& target) {
  failed_attempts_
      .Of({target},
          [&]() -> Counter& {
            return registry_.AddCounter(kAttemptsTotal, kAttemptsHelp,
                                        AttemptLabels("failure", models_.Fold(target), "", "", ""));
          })
      .Add();
}

namespace {

// For the length of the call: the next one on the thread writes over it.
const std::string& AttemptKey(std::string_view target, const EndpointInfo& to) {
  static thread_local std::string key;
  key.clear();
  const Digits port(to.port);
  for (std::string_view part :
       {target, std::string_view(to.name), std::string_view(to.ns), port.text()})
    key.append(part).push_back('\0');
  return key;
}

}  // namespace

void RequestMetrics::Attempt(const std::string& target, const EndpointInfo* endpoint) {
  if (endpoint == nullptr) return FailedAttempt(target);
  // A target that counts already is a label as it stands.
  if (CountAttempt(target, *endpoint)) return;
  const std::string folded = models_.Fold(target);
  for (int tries = 0; tries < 2; ++tries) {
    if (CountAttempt(folded, *endpoint)) return;
    MakeAttempts(folded, *endpoint);
  }
}

bool RequestMetrics::CountAttempt(std::string_view target, const EndpointInfo& to) {
  std::shared_lock lock(attempts_mutex_);
  const auto it = attempts_.find(AttemptKey(target, to));
  if (it == attempts_.end()) return false;
  it->second.count.Add();
  return true;
}

void RequestMetrics::MakeAttempts(std::string_view target, const EndpointInfo& to) {
  const std::shared_ptr<const Snapshot> now = snapshot_ ? snapshot_() : nullptr;
  std::unique_lock lock(attempts_mutex_);
  if (attempts_.size() >= next_sweep_ && now && now->set) SweepAttempts(*now->set);
  Attempts& made = attempts_[AttemptKey(target, to)];
  made.target = target;
  made.name = to.name;
  made.ns = to.ns;
  made.port = to.port;
}

void RequestMetrics::SweepAttempts(const EndpointSet& members) {
  std::set<std::tuple<std::string_view, std::string_view, uint16_t>> live;
  for (const auto& info : members.infos) live.emplace(info->ns, info->name, info->port);
  std::erase_if(attempts_, [&](const auto& entry) {
    const Attempts& a = entry.second;
    return !live.contains({a.ns, a.name, a.port});
  });
  next_sweep_ = std::max(kFirstSweep, 2 * attempts_.size());
}

void RequestMetrics::EmitAttempts(const MetricsRegistry::GaugeEmit& emit) {
  const std::shared_ptr<const Snapshot> now = snapshot_ ? snapshot_() : nullptr;
  std::unique_lock lock(attempts_mutex_);
  if (now && now->set) SweepAttempts(*now->set);
  std::map<Labels, double> sums;  // of models that share "other"
  for (const auto& [key, a] : attempts_) {
    sums[AttemptLabels("success", a.target, a.name, a.ns, Digits(a.port).text())] +=
        a.count.value();
  }
  lock.unlock();
  for (const auto& [labels, total] : sums) emit(labels, total);
}

void RequestMetrics::Disagg(const Plugin& handler, const std::string& model,
                            std::string_view type) {
  // The handler may change with the configuration.
  disagg_
      .Of({handler.name(), handler.type(), model, type},
          [&]() -> Counter& {
            return registry_.AddCounter(
                kDisaggTotal, kDisaggHelp,
                DisaggLabels(handler.name(), handler.type(), models_.Fold(model), type));
          })
      .Add();
}

void RequestMetrics::Rewrite(const std::string& rule, const std::string& model,
                             const std::string& target) {
  rewrites_
      .Of({rule, model, target},
          [&]() -> Counter& {
            return registry_.AddCounter(kRewritesTotal, kRewritesHelp,
                                        RewriteLabels(rule, models_.Fold(model), target));
          })
      .Add();
}

void RequestMetrics::Keep(const PoolPolicy& policy) {
  std::set<std::string> names;
  for (const RewriteRule& rule : policy.rules) {
    names.insert(rule.models.begin(), rule.models.end());
    for (const RewriteTarget& target : rule.targets) names.insert(target.model);
  }
  models_.Keep(std::move(names));
}

void RequestMetrics::Reload(bool ok) {
  (ok ? reloads_ok_ : reloads_failed_).Add();
}

void RequestMetrics::FollowPool(std::function<std::shared_ptr<const Snapshot>()> snapshot) {
  snapshot_ = snapshot;
  const auto gauge = [&](const char* name, const char* help, double (*of)(const Snapshot&)) {
    collectors_.push_back(registry_.AddGaugeCollector(
        "llm_d_epp_" + std::string(name), help,
        [pool = pool_, snapshot, of](const MetricsRegistry::GaugeEmit& emit) {
          emit({{"name", pool}}, of(*snapshot()));
        }));
  };
  gauge("average_kv_cache_utilization", "Mean KV use of the pool",
        [](const Snapshot& s) { return MomentsOf(s.kv_usage).mean; });
  gauge("average_queue_size", "Mean waiting requests of the pool",
        [](const Snapshot& s) { return MomentsOf(s.waiting).mean; });
  gauge("average_running_requests", "Mean running requests of the pool",
        [](const Snapshot& s) { return MomentsOf(s.running).mean; });
  gauge("std_dev_kv_cache_utilization", "Standard deviation of KV use",
        [](const Snapshot& s) { return MomentsOf(s.kv_usage).deviation; });
  gauge("std_dev_queue_size", "Standard deviation of waiting requests",
        [](const Snapshot& s) { return MomentsOf(s.waiting).deviation; });
  gauge("std_dev_running_requests", "Standard deviation of running requests",
        [](const Snapshot& s) { return MomentsOf(s.running).deviation; });
  gauge("ready_endpoints", "Endpoints of the pool",
        [](const Snapshot& s) { return static_cast<double>(s.size()); });
  collectors_.push_back(registry_.AddGaugeCollector(
      "llm_d_epp_per_endpoint_queue_size", "Waiting requests of an endpoint",
      [pool = pool_, snapshot](const MetricsRegistry::GaugeEmit& emit) {
        const std::shared_ptr<const Snapshot> s = snapshot();
        for (size_t i = 0; i < s->size(); ++i) {
          if (std::isnan(s->waiting[i])) continue;
          emit({{"name", pool}, {"model_server_endpoint", s->info(i).name}}, s->waiting[i]);
        }
      }));
}

}  // namespace llmd::sched
