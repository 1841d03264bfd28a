// What the sidecar counts.
#pragma once

#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "common/request_metrics.h"
#include "llmd/clock.h"
#include "llmd/metrics.h"

namespace llmd::sidecar {

// Thread-safe.
class SidecarMetrics {
 public:
  explicit SidecarMetrics(MetricsRegistry& registry);

  // `path`: disaggregated, local, passthrough, refused (by a rule of HTTP or a limit). `code`: as
  // sent to the client, 0 = it had left.
  Counter& Requests(std::string_view path, int code);
  // `leg`: prefill, decode. `outcome`: ok, or why not (refused, reset, timeout, protocol, ours,
  // cancelled, http_<class>xx).
  Histogram& Legs(std::string_view leg, std::string_view outcome);

 private:
  MetricsRegistry& registry_;

 public:
  Counter& retries;         // prefill asked again
  Counter& fallbacks;       // answered by local decode after a failed prefill
  Counter& missing_params;  // prefill answered 2xx without kv_transfer_params
  Counter& released;        // lenders told that a decode leg never started
  Counter& release_failed;
  Counter& response_bytes;  // relayed to clients
  services::RequestMetrics by_route;
};

// The series that one loop has met, so that no name is looked up twice. Thread-compatible.
class LoopMetrics {
 public:
  explicit LoopMetrics(SidecarMetrics& all) : all_(all) {}
  // Names are literals.
  void Request(std::string_view path, int code);
  void Leg(std::string_view leg, std::string_view outcome, Duration elapsed);
  SidecarMetrics& all() { return all_; }

 private:
  struct RequestSeries {
    std::string_view path;
    int code;
    Counter* counter;
  };
  struct LegSeries {
    std::string_view leg, outcome;
    Histogram* histogram;
  };
  SidecarMetrics& all_;
  std::vector<RequestSeries> requests_;
  std::vector<LegSeries> legs_;
};

}  // namespace llmd::sidecar
