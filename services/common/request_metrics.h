// What gateway and sidecar count of their requests, each under a prefix of its own.
#pragma once

#include <array>
#include <string>
#include <string_view>

#include "common/refusal_reason.h"
#include "common/request_series.h"
#include "llmd/metrics.h"

namespace llmd::services {

// Thread-safe. Requests are counted by loops in shards of `series`.
class RequestMetrics {
 public:
  // Label values that are kept, each; later ones read "other".
  static constexpr size_t kMaxModels = 100, kMaxEndpoints = 512;
  // `requests` is the name of the family of requests, after the prefix. `registry` outlives this.
  RequestMetrics(MetricsRegistry& registry, const std::string& prefix, const std::string& requests);

  // By RefusalReason.
  void Refused(size_t reason) { refusals_[reason]->Add(); }
  // `stage`: before_answer, within_answer.
  void UpstreamFailed(std::string_view endpoint, std::string_view kind, std::string_view stage);

 private:
  MetricsRegistry& registry_;
  const std::string prefix_;
  std::array<Counter*, kRefusalReasons.size()> refusals_{};

 public:
  RequestSeries series;
  NameCap models{kMaxModels}, endpoints{kMaxEndpoints};
};

}  // namespace llmd::services
