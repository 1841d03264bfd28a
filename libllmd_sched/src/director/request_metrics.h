// The llm_d_epp_* series of requests and of the pool (endpoint-picker.md §6.2), old names as
// aliases.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>

#include "director/keyed_cache.h"
#include "llmd/metrics.h"
#include "llmd/sched/endpoint.h"
#include "llmd/sched/parser.h"
#include "llmd/sched/plugin.h"

namespace llmd::sched {

// The series of one model, target, fairness id and priority. Looked up once per request.
struct RequestSeries {
  Counter* total;
  Histogram *duration, *size, *response_size, *input, *output, *cached, *ttft, *ttft_streaming,
      *tpot, *itl, *ntpot;
  Gauge* running;
};

// Thread-safe. Names beyond 1,000 models or fairness ids are folded into "other".
class RequestMetrics {
 public:
  RequestMetrics(MetricsRegistry& registry, std::string pool);
  const RequestSeries& Of(const std::string& model, const std::string& target,
                          const std::string& fairness, int priority);
  void Error(const std::string& model, const std::string& target, int http_status);
  // One scheduling attempt; `endpoint` null = it failed.
  void Attempt(const std::string& target, const EndpointInfo* endpoint);
  // Which stages the decision of `handler` uses.
  void Disagg(const Plugin& handler, const std::string& model, std::string_view type);
  void Rewrite(const std::string& rule, const std::string& model, const std::string& target);
  void Pool(const Snapshot& snapshot);

  Histogram& scheduling;  // scheduler_e2e_duration_seconds
  Histogram& processing;  // request_processing_duration_seconds

 private:
  std::string FoldModel(const std::string& name);
  std::string FoldFairness(const std::string& name);
  RequestSeries Make(const Labels& labels);

  MetricsRegistry& registry_;
  const std::string pool_;
  KeyedCache<const RequestSeries> by_request_;
  KeyedCache<Counter> errors_, attempts_, disagg_, rewrites_;
  std::mutex mutex_;
  std::map<std::string, std::unique_ptr<RequestSeries>> series_;  // guarded by mutex_
  std::set<std::string> models_, fairness_;                       // guarded by mutex_
};

}  // namespace llmd::sched
