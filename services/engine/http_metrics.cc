#include "engine/http_metrics.h"

#include <algorithm>
#include <string>
#include <vector>

namespace llmd::services {
namespace {

// Clients may send any word.
std::string_view MethodLabel(std::string_view method) {
  constexpr std::array<std::string_view, 7> kKnown = {"GET",    "HEAD",  "POST",   "PUT",
                                                      "DELETE", "PATCH", "OPTIONS"};
  const auto at = std::find(kKnown.begin(), kKnown.end(), method);
  return at != kKnown.end() ? *at : std::string_view("other");
}

const std::vector<double> kBounds = {.005, .025, .1, .5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600};

}  // namespace

HttpMetrics::HttpMetrics(MetricsRegistry& registry) : registry_(registry) {
  for (size_t i = 0; i < refusals_.size(); ++i) {
    refusals_[i] = &registry.AddCounter("llmd_http_refusals_total",
                                        "Requests that broke a rule of HTTP or a limit.",
                                        {{"reason", std::string(kRefusalReasons[i])}});
  }
}

void HttpMetrics::Request(const HttpRequestFacts& request) {
  const Labels labels = {{"handler", std::string(request.handler)},
                         {"method", std::string(MethodLabel(request.method))}};
  Labels counted = labels;
  counted.emplace_back("status", std::to_string(request.status));
  registry_.AddCounter("http_requests_total", "Requests by route, method and status.", counted)
      .Add();
  registry_
      .AddHistogram("http_request_duration_seconds", "From the request's head to its answer's end.",
                    kBounds, labels)
      .Observe(std::chrono::duration<double>(request.took).count());
  registry_.AddCounter("llmd_http_request_body_bytes_total", "Bytes of requests' bodies.", labels)
      .Add(static_cast<double>(request.request_bytes));
  registry_.AddCounter("llmd_http_answer_body_bytes_total", "Bytes of answers' bodies.", labels)
      .Add(static_cast<double>(request.answer_bytes));
}

}  // namespace llmd::services
