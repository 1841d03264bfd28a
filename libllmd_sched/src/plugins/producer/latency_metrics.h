// The series of predicted latency (docs/metrics.md), old names as aliases.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "director/keyed_cache.h"
#include "director/name_cap.h"
#include "llmd/metrics.h"

namespace llmd::sched {

// Of one dimension (TTFT or TPOT) of one model and target. Times in seconds.
struct LatencySeries {
  Histogram *predicted, *duration;
  Counter* violations;
  // inference_request_metric: the last request's values.
  Gauge *last, *last_predicted, *last_duration, *last_violated, *last_slo;

  void Predicted(double predicted_ms);
  // `slo_ms` < 0 = none was asked for.
  void Measured(double ms, double slo_ms);
  void Took(double seconds);
};
struct LatencySeriesPair {
  LatencySeries ttft, tpot;
};

// Thread-safe. Models beyond 1,000 are folded into "other".
class LatencyMetrics {
 public:
  explicit LatencyMetrics(MetricsRegistry& registry) : registry_(registry) {}
  LatencySeriesPair& Of(const std::string& model, const std::string& target);

 private:
  LatencySeries Make(const std::string& dimension, const Labels& labels);
  MetricsRegistry& registry_;
  KeyedCache<LatencySeriesPair> by_model_;
  std::mutex mutex_;
  std::map<std::string, std::unique_ptr<LatencySeriesPair>> pairs_;  // guarded by mutex_
};

}  // namespace llmd::sched
