#include "common/admin.h"

#include <charconv>

namespace llmd::services {
namespace {

constexpr std::string_view kDecisions = "/debug/decisions/";
constexpr size_t kDefaultLimit = 50, kMaxLimit = 1000;

http::Response Text(int status, std::string body,
                    std::string_view type = "text/plain; charset=utf-8") {
  http::Response response;
  response.head.status = status;
  response.head.headers.Add("Content-Type", type);
  response.body = std::move(body);
  return response;
}

// A handler that computes its whole answer at once.
struct Route {
  std::function<http::Response(const http::RequestHead&)> make;
  http::Task<void> operator()(http::Exchange& exchange) const {
    http::Response response = make(exchange.request());
    (void)co_await exchange.Send(std::move(response));
  }
};

// The value of `name=…` in a query, as it stands; "" when absent.
std::string_view Parameter(std::string_view query, std::string_view name) {
  while (!query.empty()) {
    const size_t end = query.find('&');
    const std::string_view one = query.substr(0, end);
    if (one.starts_with(name) && one.substr(name.size()).starts_with('='))
      return one.substr(name.size() + 1);
    query = end == std::string_view::npos ? std::string_view() : query.substr(end + 1);
  }
  return "";
}

http::Response Bad(int status, const std::string& message) {
  return http::JsonResponse(status, json::Value(json::Object{{"error", message}}).Dump());
}

http::Response ListResponse(const AdminSources& sources, std::string_view query) {
  size_t limit = kDefaultLimit;
  if (const std::string_view text = Parameter(query, "limit"); !text.empty()) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), limit);
    if (error != std::errc() || end != text.data() + text.size() || limit < 1 || limit > kMaxLimit)
      return Bad(400, "limit: expected a number of 1 to " + std::to_string(kMaxLimit));
  }
  return http::JsonResponse(200, sources.decisions(limit).Dump());
}

http::Response ReadyResponse(const AdminSources& sources, std::string_view query) {
  const std::string_view pool = Parameter(query, "pool");
  const bool ready = pool.empty()
                         ? sources.ready()
                         : sources.ready() && sources.pool_ready && sources.pool_ready(pool);
  return ready ? Text(200, "ok\n") : Text(503, "not ready\n");
}

http::Response ExplainResponse(const AdminSources& sources, std::string_view path) {
  auto trace = sources.explain(path.substr(kDecisions.size()));
  if (trace.ok()) return http::JsonResponse(200, std::move(*trace));
  return Bad(404, trace.status().message());
}

}  // namespace

void AddAdminRoutes(http::Router& router, const AdminSources& sources) {
  const AdminSources* from = &sources;
  auto add = [&router](std::string_view path,
                       std::function<http::Response(const http::RequestHead&)> make) {
    router.Add("GET", path, Route{std::move(make)});
  };
  add("/metrics", [from](const http::RequestHead&) {
    return Text(200, from->metrics(), "text/plain; version=0.0.4; charset=utf-8");
  });
  add("/healthz", [](const http::RequestHead&) { return Text(200, "ok\n"); });
  add("/readyz",
      [from](const http::RequestHead& head) { return ReadyResponse(*from, head.query()); });
  if (from->plugin_state) {
    add("/debug/plugins/state", [from](const http::RequestHead&) {
      return http::JsonResponse(200, from->plugin_state().Dump());
    });
  }
  if (from->models) {
    add("/debug/models", [from](const http::RequestHead&) {
      return http::JsonResponse(200, from->models().Dump());
    });
  }
  if (!from->explain) return;
  if (from->decisions) {
    add("/debug/decisions",
        [from](const http::RequestHead& head) { return ListResponse(*from, head.query()); });
  }
  add("/debug/decisions/*",
      [from](const http::RequestHead& head) { return ExplainResponse(*from, head.path()); });
}

}  // namespace llmd::services
