// What the engine counts of HTTP: requests by route, method and status, as vLLM's server names
// them, and the requests that no route saw. What concerns the model is in serving's metrics.
#pragma once

#include <array>
#include <string_view>

#include "common/refusal_reason.h"
#include "llmd/clock.h"
#include "llmd/metrics.h"

namespace llmd::services {

struct HttpRequestFacts {
  std::string_view handler;  // the route's path; "none" = no route
  std::string_view method;
  int status = 0;  // 0 = the client left first
  Duration took{};
  size_t request_bytes = 0, answer_bytes = 0;  // of bodies
};

// Thread-safe; `registry` outlives it.
class HttpMetrics {
 public:
  explicit HttpMetrics(MetricsRegistry& registry);
  void Request(const HttpRequestFacts& request);
  // By RefusalReason.
  void Refused(size_t reason) { refusals_[reason]->Add(); }

 private:
  MetricsRegistry& registry_;
  std::array<Counter*, kRefusalReasons.size()> refusals_{};
};

}  // namespace llmd::services
