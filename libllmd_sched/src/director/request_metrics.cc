#include "director/request_metrics.h"

#include <algorithm>
#include <charconv>
#include <cmath>

namespace llmd::sched {
namespace {

constexpr size_t kMaxNames = 1000;
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

}  // namespace

RequestMetrics::RequestMetrics(MetricsRegistry& registry, std::string pool)
    : scheduling(registry.AddHistogram("llm_d_epp_scheduler_e2e_duration_seconds",
                                       "Time spent scheduling a request", kFast)),
      processing(registry.AddHistogram(
          "llm_d_epp_request_processing_duration_seconds",
          "Time from a request's last byte to its routing, queueing included", kProcessing)),
      registry_(registry),
      pool_(std::move(pool)) {
  registry.AddAlias("llm_d_epp_scheduler_e2e_duration_seconds",
                    "inference_extension_scheduler_e2e_duration_seconds");
}

namespace {

std::string Fold(std::set<std::string>& seen, const std::string& name) {
  if (!seen.contains(name) && seen.size() >= kMaxNames) return "other";
  seen.insert(name);
  return name;
}

}  // namespace

std::string RequestMetrics::FoldModel(const std::string& name) {
  std::lock_guard lock(mutex_);
  return Fold(models_, name);
}

std::string RequestMetrics::FoldFairness(const std::string& name) {
  std::lock_guard lock(mutex_);
  return Fold(fairness_, name);
}

RequestSeries RequestMetrics::Make(const Labels& labels) {
  const auto histogram = [&](const char* name, const char* help, const std::vector<double>& bounds,
                             const Labels& l) {
    Histogram* out = &registry_.AddHistogram("llm_d_epp_" + std::string(name), help, bounds, l);
    registry_.AddAlias("llm_d_epp_" + std::string(name),
                       "inference_objective_" + std::string(name));
    return out;
  };
  Labels plain = labels, streaming = labels;
  plain.emplace_back("streaming", "false");
  streaming.emplace_back("streaming", "true");
  RequestSeries s{};
  s.total = &registry_.AddCounter("llm_d_epp_request_total", "Requests routed", labels);
  s.running = &registry_.AddGauge("llm_d_epp_request_running", "Requests being answered", labels);
  registry_.AddAlias("llm_d_epp_request_total", "inference_objective_request_total");
  registry_.AddAlias("llm_d_epp_request_running", "inference_objective_running_requests");
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
  char digits[16];
  const auto end = std::to_chars(digits, digits + sizeof(digits), priority).ptr;
  const std::string_view p(digits, static_cast<size_t>(end - digits));
  return by_request_.Of({model, target, fairness, p}, [&]() -> const RequestSeries& {
    const std::string m = FoldModel(model), t = FoldModel(target), f = FoldFairness(fairness);
    std::lock_guard lock(mutex_);
    std::unique_ptr<RequestSeries>& series =
        series_[m + '\n' + t + '\n' + f + '\n' + std::string(p)];
    if (!series) {
      series = std::make_unique<RequestSeries>(Make({{"model_name", m},
                                                     {"target_model_name", t},
                                                     {"fairness_id", f},
                                                     {"priority", std::string(p)}}));
    }
    return *series;
  });
}

void RequestMetrics::Error(const std::string& model, const std::string& target, int http_status) {
  const std::string code = std::to_string(http_status);  // short: no allocation
  errors_
      .Of({model, target, code},
          [&]() -> Counter& {
            registry_.AddAlias("llm_d_epp_request_error_total",
                               "inference_objective_request_error_total");
            return registry_.AddCounter("llm_d_epp_request_error_total",
                                        "Requests refused here or failed by the model server",
                                        {{"model_name", FoldModel(model)},
                                         {"target_model_name", FoldModel(target)},
                                         {"error_code", code}});
          })
      .Add();
}

void RequestMetrics::Attempt(const std::string& target, const EndpointInfo* endpoint) {
  const std::string port = endpoint ? std::to_string(endpoint->port) : "";
  const std::string_view name = endpoint ? endpoint->name : std::string_view();
  const std::string_view ns = endpoint ? endpoint->ns : std::string_view();
  attempts_
      .Of({target, name, ns, port},
          [&]() -> Counter& {
            return registry_.AddCounter("llm_d_epp_scheduler_attempts_total", "Scheduling attempts",
                                        {{"status", endpoint ? "success" : "failure"},
                                         {"target_model_name", FoldModel(target)},
                                         {"endpoint_name", std::string(name)},
                                         {"namespace", std::string(ns)},
                                         {"port", port}});
          })
      .Add();
}

void RequestMetrics::Disagg(const Plugin& handler, const std::string& model,
                            std::string_view type) {
  disagg_
      .Of({model, type},
          [&]() -> Counter& {
            registry_.AddAlias("llm_d_epp_disagg_decision_total", "llm_d_epp_pd_decision_total");
            return registry_.AddCounter("llm_d_epp_disagg_decision_total",
                                        "Decisions by the stages they use",
                                        {{"plugin_name", handler.name()},
                                         {"plugin_type", handler.type()},
                                         {"model_name", FoldModel(model)},
                                         {"decision_type", std::string(type)}});
          })
      .Add();
}

void RequestMetrics::Rewrite(const std::string& rule, const std::string& model,
                             const std::string& target) {
  rewrites_
      .Of({rule, model, target},
          [&]() -> Counter& {
            return registry_.AddCounter("llm_d_epp_model_rewrite_decisions_total",
                                        "Model names replaced by a rewrite rule",
                                        {{"model_rewrite_name", rule},
                                         {"model_name", FoldModel(model)},
                                         {"target_model", target}});
          })
      .Add();
}

void RequestMetrics::Pool(const Snapshot& snapshot) {
  const Labels pool = {{"name", pool_}};
  const auto set = [&](const std::string& name, const char* help, double v) {
    registry_.AddGauge("llm_d_epp_" + name, help, pool).Set(v);
    registry_.AddAlias("llm_d_epp_" + name, "inference_pool_" + name);
  };
  const Moments kv = MomentsOf(snapshot.kv_usage), queue = MomentsOf(snapshot.waiting),
                running = MomentsOf(snapshot.running);
  set("average_kv_cache_utilization", "Mean KV use of the pool", kv.mean);
  set("average_queue_size", "Mean waiting requests of the pool", queue.mean);
  set("average_running_requests", "Mean running requests of the pool", running.mean);
  set("std_dev_kv_cache_utilization", "Standard deviation of KV use", kv.deviation);
  set("std_dev_queue_size", "Standard deviation of waiting requests", queue.deviation);
  set("std_dev_running_requests", "Standard deviation of running requests", running.deviation);
  set("ready_endpoints", "Endpoints of the pool", static_cast<double>(snapshot.size()));
  for (size_t i = 0; i < snapshot.size(); ++i) {
    if (snapshot.stale[i]) continue;
    registry_
        .AddGauge("llm_d_epp_per_endpoint_queue_size", "Waiting requests of an endpoint",
                  {{"name", pool_}, {"model_server_endpoint", snapshot.info(i).name}})
        .Set(snapshot.waiting[i]);
  }
}

}  // namespace llmd::sched
