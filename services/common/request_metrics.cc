#include "common/request_metrics.h"

namespace llmd::services {

RequestMetrics::RequestMetrics(MetricsRegistry& registry, const std::string& prefix,
                               const std::string& requests)
    : registry_(registry),
      prefix_(prefix),
      series(registry, prefix, requests, {"route", "model", "endpoint"}) {
  for (size_t i = 0; i < refusals_.size(); ++i) {
    refusals_[i] = &registry.AddCounter(prefix + "refusals_total",
                                        "Requests that broke a rule of HTTP or a limit.",
                                        {{"reason", std::string(kRefusalReasons[i])}});
  }
}

void RequestMetrics::UpstreamFailed(std::string_view endpoint, std::string_view kind,
                                    std::string_view stage) {
  registry_
      .AddCounter(prefix_ + "upstream_failures_total",
                  "Attempts that failed, before the answer's head or within the answer.",
                  {{"endpoint", std::string(endpoint)},
                   {"kind", std::string(kind)},
                   {"stage", std::string(stage)}})
      .Add();
}

}  // namespace llmd::services
