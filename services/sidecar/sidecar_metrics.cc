#include "sidecar/sidecar_metrics.h"

#include <chrono>
#include <string>

namespace llmd::sidecar {

SidecarMetrics::SidecarMetrics(MetricsRegistry& registry)
    : registry_(registry),
      retries(registry.AddCounter("llmd_sidecar_prefill_retries_total",
                                  "Prefill legs sent again after 502, 503 or 504.")),
      fallbacks(registry.AddCounter("llmd_sidecar_local_decode_fallbacks_total",
                                    "Requests decoded locally after a failed prefill.")),
      missing_params(registry.AddCounter(
          "llmd_sidecar_missing_kv_transfer_params_total",
          "Prefill replies without kv_transfer_params: the prompt is computed again.")),
      released(registry.AddCounter("llmd_sidecar_lease_releases_total",
                                   "Lenders told that a decode leg never started.",
                                   {{"outcome", "ok"}})),
      release_failed(registry.AddCounter("llmd_sidecar_lease_releases_total",
                                         "Lenders told that a decode leg never started.",
                                         {{"outcome", "failed"}})),
      response_bytes(registry.AddCounter("llmd_sidecar_response_bytes_total",
                                         "Body bytes relayed to clients.")),
      by_route(registry, "llmd_sidecar_", "requests_by_route_total") {}

Counter& SidecarMetrics::Requests(std::string_view path, int code) {
  return registry_.AddCounter("llmd_sidecar_requests_total",
                              "Requests by path taken and status sent; 0 = the client had left.",
                              {{"path", std::string(path)}, {"code", std::to_string(code)}});
}

Histogram& SidecarMetrics::Legs(std::string_view leg, std::string_view outcome) {
  const Labels labels = {{"leg", std::string(leg)}, {"outcome", std::string(outcome)}};
  return registry_.AddHistogram(
      "llmd_sidecar_leg_seconds", "Prefill: whole leg. Decode: to the response head.",
      {0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120}, labels);
}

void LoopMetrics::Request(std::string_view path, int code) {
  for (const RequestSeries& series : requests_) {
    if (series.code == code && series.path == path) return series.counter->Add();
  }
  requests_.push_back({path, code, &all_.Requests(path, code)});
  requests_.back().counter->Add();
}

void LoopMetrics::Leg(std::string_view leg, std::string_view outcome, Duration elapsed) {
  const double seconds = std::chrono::duration<double>(elapsed).count();
  for (const LegSeries& series : legs_) {
    if (series.outcome == outcome && series.leg == leg) return series.histogram->Observe(seconds);
  }
  legs_.push_back({leg, outcome, &all_.Legs(leg, outcome)});
  legs_.back().histogram->Observe(seconds);
}

}  // namespace llmd::sidecar
