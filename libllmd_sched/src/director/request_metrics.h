// The llm_d_epp_* series of requests and of the pool (endpoint-picker.md §6.2), old names as
// aliases.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "llmd/metrics.h"
#include "llmd/sched/endpoint.h"
#include "llmd/sched/parser.h"

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
  void Attempt(bool ok, const std::string& target, const EndpointInfo* endpoint);
  void Disagg(const std::string& model, std::string_view type);
  void Pool(const Snapshot& snapshot);

  Histogram& scheduling;  // scheduler_e2e_duration_seconds
  Histogram& processing;  // request_processing_duration_seconds

 private:
  std::string Fold(std::map<std::string, bool>& seen, const std::string& name);
  RequestSeries Make(const Labels& labels);

  MetricsRegistry& registry_;
  const std::string pool_;
  std::mutex mutex_;
  std::map<std::string, std::unique_ptr<RequestSeries>> series_;  // guarded by mutex_
  std::map<std::string, bool> models_, fairness_;                 // guarded by mutex_
};

}  // namespace llmd::sched
