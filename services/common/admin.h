// The admin port of a router: /metrics, /healthz, /readyz, /debug/decisions/{request id}.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "llmd/http/server.h"
#include "llmd/metrics.h"
#include "llmd/status.h"

namespace llmd::services {

struct AdminSources {
  MetricsRegistry* metrics = nullptr;
  std::function<bool()> ready;
  // May be empty: no such route.
  std::function<StatusOr<std::string>(std::string_view request_id)> explain;
};

// Adds the routes; the sources must outlive the router's server.
void AddAdminRoutes(http::Router& router, const AdminSources& sources);

}  // namespace llmd::services
