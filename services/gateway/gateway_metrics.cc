#include "gateway/gateway_metrics.h"

#include <string>

namespace llmd::gateway {

GatewayMetrics::GatewayMetrics(MetricsRegistry& registry)
    : registry_(registry),
      inflight(registry.AddGauge("llmd_gateway_requests_inflight", "Requests being served.")),
      retries(registry.AddCounter("llmd_gateway_retries_total",
                                  "Attempts beyond the first, on another endpoint.")),
      panics(registry.AddCounter("llmd_gateway_panic_attempts_total",
                                 "Attempts at endpoints that had just failed, as none was left.")),
      upstream_cut(
          registry.AddCounter("llmd_gateway_upstream_cut_total", "Answers an engine broke off.")),
      client_gone(registry.AddCounter("llmd_gateway_client_gone_total",
                                      "Clients that left before the end.")),
      duration_(registry.AddHistogram("llmd_gateway_request_duration_seconds",
                                      "From request head to last byte.",
                                      {.005, .025, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300})),
      first_byte_(registry.AddHistogram(
          "llmd_gateway_first_byte_seconds", "From request head to the answer's head.",
          {.001, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60})) {}

void GatewayMetrics::Request(int status, Duration whole, Duration first_byte) {
  const size_t index = status >= 0 && status < 600 ? static_cast<size_t>(status) : 0;
  Counter* counter = by_status_[index].load(std::memory_order_relaxed);
  if (counter == nullptr) {
    counter = &registry_.AddCounter("llmd_gateway_requests_total", "Requests by the status sent.",
                                    {{"status", std::to_string(index)}});
    by_status_[index].store(counter, std::memory_order_relaxed);
  }
  counter->Add();
  duration_.Observe(std::chrono::duration<double>(whole).count());
  if (first_byte > Duration::zero())
    first_byte_.Observe(std::chrono::duration<double>(first_byte).count());
}

}  // namespace llmd::gateway
