// What the gateway counts, whichever way requests take through it.
#pragma once

#include <array>
#include <atomic>

#include "llmd/clock.h"
#include "llmd/metrics.h"

namespace llmd::gateway {

// Thread-safe.
class GatewayMetrics {
 public:
  explicit GatewayMetrics(MetricsRegistry& registry);

  // `status` as sent, 0 = the client left first; `first_byte` zero = none was sent.
  void Request(int status, Duration whole, Duration first_byte);

 private:
  MetricsRegistry& registry_;
  std::array<std::atomic<Counter*>, 600> by_status_{};

 public:
  Gauge& inflight;
  Counter& retries;
  Counter& panics;
  Counter& upstream_cut;
  Counter& client_gone;

 private:
  Histogram& duration_;
  Histogram& first_byte_;
};

}  // namespace llmd::gateway
