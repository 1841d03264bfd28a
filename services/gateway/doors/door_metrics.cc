#include "gateway/doors/door_metrics.h"

namespace llmd::doors {
namespace {

constexpr std::string_view kRefusals = "llmd_gateway_door_refusals_total";
constexpr std::string_view kRefusalsHelp =
    "Requests refused for what they are: a path, an origin, a model";

Counter& Refusals(MetricsRegistry& registry, const char* reason) {
  return registry.AddCounter(kRefusals, kRefusalsHelp, {{"reason", reason}});
}

// As names of models are bounded elsewhere; what is cut ends in "...".
std::string BoundedLabel(const std::string& text) {
  constexpr size_t kMost = 128;
  return text.size() <= kMost ? text : text.substr(0, kMost - 3) + "...";
}

}  // namespace

DoorMetrics::DoorMetrics(MetricsRegistry& registry)
    : refused_paths(Refusals(registry, "path")),
      refused_origins(Refusals(registry, "origin")),
      unknown_models(Refusals(registry, "unknown_model")),
      disagreeing_models(Refusals(registry, "ambiguous_model")),
      registry_(registry),
      others_(Make("other")) {
  for (size_t i = 0; i < kAuthFailureNames.size(); ++i) {
    auth_failures_[i] =
        &registry.AddCounter("llmd_gateway_auth_failures_total", "Requests refused for their key",
                             {{"reason", std::string(kAuthFailureNames[i])}});
  }
  for (size_t i = 0; i < kBoundNames.size(); ++i) {
    for (const bool total : {false, true}) {
      bounded_[i][total ? 1 : 0] = &registry.AddCounter(
          "llmd_gateway_bounded_total",
          "Connections and requests refused for a bound of one client or all",
          {{"bound", std::string(kBoundNames[i])}, {"scope", total ? "total" : "client"}});
    }
  }
}

TenantCounters DoorMetrics::Make(const std::string& tenant) {
  const auto limited = [&](const char* kind) {
    return &registry_.AddCounter("llmd_gateway_ratelimited_total",
                                 "Requests refused for a limit a minute of their key",
                                 {{"tenant", tenant}, {"limit", kind}});
  };
  return {
      &registry_.AddCounter("llmd_gateway_tenant_requests_total",
                            "Requests within the limits of their key, by its tenant",
                            {{"tenant", tenant}}),
      &registry_.AddCounter("llmd_gateway_tenant_tokens_total",
                            "Tokens of requests with a key, by its tenant", {{"tenant", tenant}}),
      limited("requests"), limited("tokens")};
}

const TenantCounters& DoorMetrics::Of(const std::string& tenant) {
  const std::lock_guard lock(mutex_);
  if (const auto it = tenants_.find(tenant); it != tenants_.end()) return it->second;
  if (tenants_.size() >= kMaxTenants || tenant == "other") return others_;
  return tenants_.emplace(tenant, Make(tenant)).first->second;
}

Counter& DoorMetrics::OfRoute(const std::string& route, const std::string& model,
                              const std::string& pool) {
  std::array<std::string, 3> names = {route, BoundedLabel(model), pool};
  {
    const std::lock_guard lock(mutex_);
    if (!targets_.contains(names)) {
      if (targets_.size() >= kMaxTargets)
        names = {"other", "other", "other"};
      else
        targets_.insert(names);
    }
  }
  return registry_.AddCounter(
      "llmd_gateway_route_decisions_total", "Requests that a route of models sent to a target",
      {{"route", names[0]}, {"target_model", names[1]}, {"pool", names[2]}});
}

void DoorMetrics::Reloaded(std::string_view file, bool ok) {
  registry_
      .AddCounter("llmd_gateway_file_reloads_total", "Reads of a followed file after the first",
                  {{"file", std::string(file)}, {"result", ok ? "success" : "failure"}})
      .Add();
}

}  // namespace llmd::doors
