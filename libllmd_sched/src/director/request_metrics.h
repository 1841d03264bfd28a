// The llm_d_epp_* series of requests and of the pool (docs/metrics.md); the older names are
// in metric_names.h.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <shared_mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "director/keyed_cache.h"
#include "director/name_cap.h"
#include "llmd/metrics.h"
#include "llmd/sched/endpoint.h"
#include "llmd/sched/parser.h"
#include "llmd/sched/plugin.h"
#include "llmd/sched/policy.h"

namespace llmd::sched {

// The series of one model, target, fairness id and priority. Looked up once per request.
struct RequestSeries {
  Counter* total;
  Histogram *duration, *size, *response_size, *input, *output, *cached, *ttft, *ttft_streaming,
      *tpot, *itl, *ntpot;
  Gauge* running;
};

// Thread-safe. Bounded: names by NameCap, and beyond so many combinations of labels of a kind all
// that clients choose of them read "other".
class RequestMetrics {
 public:
  static constexpr size_t kMaxErrors = 4096;
  // Of requests, eleven histograms each: some 90 KB of the page.
  static constexpr size_t kMaxSeries = 256;

  RequestMetrics(MetricsRegistry& registry, std::string pool);
  const RequestSeries& Of(const std::string& model, const std::string& target,
                          const std::string& fairness, int priority);
  void Error(const RequestContext& request, int http_status);
  // One scheduling attempt; `endpoint` null = it failed.
  void Attempt(const std::string& target, const EndpointInfo* endpoint);
  // Which stages the decision of `handler` uses.
  void Disagg(const Plugin& handler, const std::string& model, std::string_view type);
  void Rewrite(const std::string& rule, const std::string& model, const std::string& target);
  // The names that rewrite rules use are never folded.
  void Keep(const PoolPolicy& policy);
  // The pool's gauges, computed from `snapshot` at each scrape as long as this lives. From then on
  // the attempts of an endpoint go from the page with it.
  void FollowPool(std::function<std::shared_ptr<const Snapshot>()> snapshot);
  // The configuration was read again.
  void Reload(bool ok);

  Histogram& scheduling;  // scheduler_e2e_duration_seconds
  Histogram& processing;  // request_processing_duration_seconds
  Histogram& responding;  // response_processing_duration_seconds

 private:
  struct Names {
    std::string model, target, fairness;
  };
  struct Attempts {
    std::string target, name, ns;
    uint16_t port = 0;
    Counter count;
  };
  static constexpr size_t kFirstSweep = 1024;
  // The labels of an error, those of clients as "other" beyond kMaxErrors combinations.
  Labels BoundedErrorLabels(const RequestContext& request, std::string_view priority,
                            std::string_view code);
  void FailedAttempt(const std::string& target);
  // Of a target as a label; false when none was made for the endpoint yet.
  bool CountAttempt(std::string_view target, const EndpointInfo& to);
  void MakeAttempts(std::string_view target, const EndpointInfo& to);
  void EmitAttempts(const MetricsRegistry::GaugeEmit& emit);
  // Those of endpoints that have left go. Under attempts_mutex_.
  void SweepAttempts(const EndpointSet& members);
  RequestSeries Make(const Labels& labels);
  void MakeZeros();

  MetricsRegistry& registry_;
  const std::string pool_;
  Counter &reloads_ok_, &reloads_failed_;
  KeyedCache<const RequestSeries> by_request_;
  KeyedCache<Counter> errors_, failed_attempts_, disagg_, rewrites_;
  NameCap models_, fairness_;
  std::mutex mutex_;
  std::map<std::string, std::unique_ptr<RequestSeries>> series_;  // guarded by mutex_
  std::set<std::string> error_keys_;                              // guarded by mutex_
  std::function<std::shared_ptr<const Snapshot>()> snapshot_;     // null = endpoints are not known
  std::shared_mutex attempts_mutex_;
  // By target as a label and endpoint.
  std::unordered_map<std::string, Attempts> attempts_;   // guarded by attempts_mutex_
  size_t next_sweep_ = kFirstSweep;                      // guarded by attempts_mutex_
  std::vector<std::shared_ptr<const void>> collectors_;  // end before what they read
};

}  // namespace llmd::sched
