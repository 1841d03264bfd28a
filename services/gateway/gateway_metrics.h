// What the gateway counts, whichever way requests take through it.
#pragma once

#include "common/request_metrics.h"
#include "llmd/metrics.h"

namespace llmd::gateway {

// Thread-safe.
struct GatewayMetrics {
  explicit GatewayMetrics(MetricsRegistry& registry);

  services::RequestMetrics requests;
  Gauge& inflight;
  Counter& retries;
  Counter& panics;
  Counter& upstream_cut;
  Counter& client_gone;
};

}  // namespace llmd::gateway
