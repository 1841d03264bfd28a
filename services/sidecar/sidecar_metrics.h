// What the sidecar counts.
#pragma once

#include <string>
#include <string_view>

#include "llmd/clock.h"
#include "llmd/metrics.h"

namespace llmd::sidecar {

// Thread-safe.
class SidecarMetrics {
 public:
  explicit SidecarMetrics(MetricsRegistry& registry);

  // `path`: disaggregated, local, passthrough. `code`: as sent to the client, 0 = it had left.
  void Request(std::string_view path, int code);
  // `leg`: prefill, decode. `outcome`: ok, or why not (refused, reset, timeout, cancelled,
  // http_<class>xx).
  void Leg(std::string_view leg, std::string_view outcome, Duration elapsed);

 private:
  MetricsRegistry& registry_;

 public:
  Counter& retries;         // prefill asked again
  Counter& fallbacks;       // answered by local decode after a failed prefill
  Counter& missing_params;  // prefill answered 2xx without kv_transfer_params
  Counter& released;        // lenders told that a decode leg never started
  Counter& release_failed;
  Counter& response_bytes;  // relayed to clients
};

}  // namespace llmd::sidecar
