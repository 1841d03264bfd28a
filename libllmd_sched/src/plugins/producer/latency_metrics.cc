#include "plugins/producer/latency_metrics.h"

namespace llmd::sched {
namespace {

constexpr size_t kMaxModels = 1000;
const std::vector<double> kTtft = {.005, .025, .05, .1, .2, .4, .6, .8, 1,  1.25, 1.5, 2,
                                   3,    4,    5,   6,  8,  10, 15, 20, 30, 45,   60,  120};
const std::vector<double> kTpot = {.0005, .00205, .005, .01, .02, .04, .06, .08, .1, .125,
                                   .15,   .2,     .3,   .4,  .5,  .6,  .8,  1,   2};
// Predictions are made in process: most of them end before the field's first bound of 100 µs.
const std::vector<double> kDuration = {.000001, .000002, .000005, .00001, .00002, .00005, .0001,
                                       .0002,   .0005,   .001,    .002,   .005,   .01,    .1};

}  // namespace

void LatencySeries::Predicted(double predicted_ms) {
  predicted->Observe(predicted_ms * 1e-3);
  last_predicted->Set(predicted_ms * 1e-3);
}

void LatencySeries::Measured(double ms, double slo_ms) {
  last->Set(ms * 1e-3);
  if (slo_ms < 0) return;
  if (ms > slo_ms) violations->Add();
  last_violated->Set(ms > slo_ms ? 1 : 0);
  last_slo->Set(slo_ms * 1e-3);
}

void LatencySeries::Took(double seconds) {
  duration->Observe(seconds);
  last_duration->Set(seconds);
}

LatencySeries LatencyMetrics::Make(const std::string& dimension, const Labels& labels) {
  const auto histogram = [&](const std::string& name, const char* help,
                             const std::vector<double>& bounds) {
    Histogram* out = &registry_.AddHistogram("llm_d_epp_" + name, help, bounds, labels);
    registry_.AddAlias("llm_d_epp_" + name, "inference_objective_" + name);
    return out;
  };
  const auto with_type = [&](const std::string& type) {
    Labels out = labels;
    out.emplace_back("type", type);
    return out;
  };
  const auto gauge = [&](const std::string& type) {
    return &registry_.AddGauge("llm_d_epp_inference_request_metric",
                               "Of the last request: times in seconds, violations as 0 or 1",
                               with_type(type));
  };
  const bool ttft = dimension == "ttft";
  LatencySeries s{};
  s.predicted = histogram("request_predicted_" + dimension + "_seconds",
                          ttft ? "Predicted time to the first token on the chosen endpoint"
                               : "Predicted time per token on the chosen endpoint",
                          ttft ? kTtft : kTpot);
  s.duration = histogram("request_" + dimension + "_prediction_duration_seconds",
                         "Time spent predicting for all endpoints of a request", kDuration);
  s.violations =
      &registry_.AddCounter("llm_d_epp_request_slo_violation_total",
                            "Answers slower than their request's SLO", with_type(dimension));
  registry_.AddAlias("llm_d_epp_request_slo_violation_total",
                     "inference_objective_request_slo_violation_total");
  registry_.AddAlias("llm_d_epp_inference_request_metric",
                     "inference_objective_inference_request_metric");
  s.last = gauge(dimension);
  s.last_predicted = gauge("predicted_" + dimension);
  s.last_duration = gauge(dimension + "_prediction_duration");
  s.last_violated = gauge(dimension + "_slo_violation");
  s.last_slo = gauge(dimension + "_slo_threshold");
  return s;
}

LatencySeriesPair& LatencyMetrics::Of(const std::string& model, const std::string& target) {
  return by_model_.Of({model, target}, [&]() -> LatencySeriesPair& {
    const std::string model_name = BoundedName(model), target_name = BoundedName(target);
    std::lock_guard lock(mutex_);
    std::string key = model_name + '\n' + target_name;
    const bool folded = !pairs_.contains(key) && pairs_.size() >= kMaxModels;
    if (folded) key = "other\nother";
    std::unique_ptr<LatencySeriesPair>& pair = pairs_[key];
    if (!pair) {
      const Labels labels = {{"model_name", folded ? "other" : model_name},
                             {"target_model_name", folded ? "other" : target_name}};
      pair = std::make_unique<LatencySeriesPair>(
          LatencySeriesPair{Make("ttft", labels), Make("tpot", labels)});
    }
    return *pair;
  });
}

}  // namespace llmd::sched
