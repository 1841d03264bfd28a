// The admin port of a router: /metrics, /healthz, /readyz, /debug/decisions,
// /debug/decisions/{request id}, /debug/plugins/state and /debug/models.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "llmd/http/server.h"
#include "llmd/json.h"
#include "llmd/status.h"

namespace llmd::services {

struct AdminSources {
  std::function<std::string()> metrics;  // the page
  std::function<bool()> ready;
  // Of one pool (/readyz?pool=NAME); may be empty.
  std::function<bool(std::string_view pool)> pool_ready;
  // May be empty: no such route.
  std::function<StatusOr<std::string>(std::string_view request_id)> explain;
  // The last decisions as a JSON array; with explain.
  std::function<json::Value(size_t limit)> decisions;
  // May be empty: no such route.
  std::function<json::Value()> plugin_state;
  // The engines and the models that each lists. May be empty: no such route.
  std::function<json::Value()> models;
};

// Adds the routes; the sources must outlive the router's server.
void AddAdminRoutes(http::Router& router, const AdminSources& sources);

}  // namespace llmd::services
