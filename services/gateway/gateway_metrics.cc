#include "gateway/gateway_metrics.h"

namespace llmd::gateway {

GatewayMetrics::GatewayMetrics(MetricsRegistry& registry)
    : requests(registry, "llmd_gateway_", "requests_total"),
      inflight(registry.AddGauge("llmd_gateway_requests_inflight", "Requests being served.")),
      retries(registry.AddCounter("llmd_gateway_retries_total",
                                  "Attempts beyond the first, on another endpoint.")),
      panics(registry.AddCounter("llmd_gateway_panic_attempts_total",
                                 "Attempts at endpoints that had just failed, as none was left.")),
      upstream_cut(
          registry.AddCounter("llmd_gateway_upstream_cut_total", "Answers an engine broke off.")),
      client_gone(registry.AddCounter("llmd_gateway_client_gone_total",
                                      "Clients that left before the end.")) {}

}  // namespace llmd::gateway
