#include "common/admin.h"

namespace llmd::services {
namespace {

constexpr std::string_view kDecisions = "/debug/decisions/";

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

http::Response ExplainResponse(const AdminSources& sources, std::string_view path) {
  auto trace = sources.explain(path.substr(kDecisions.size()));
  if (trace.ok()) return http::JsonResponse(200, std::move(*trace));
  json::Value error;
  error.Set("error", trace.status().message());
  return http::JsonResponse(404, error.Dump());
}

}  // namespace

void AddAdminRoutes(http::Router& router, const AdminSources& sources) {
  const AdminSources* from = &sources;
  auto add = [&router](std::string_view path,
                       std::function<http::Response(const http::RequestHead&)> make) {
    router.Add("GET", path, Route{std::move(make)});
  };
  add("/metrics", [from](const http::RequestHead&) {
    return Text(200, from->metrics->Expose(), "text/plain; version=0.0.4; charset=utf-8");
  });
  add("/healthz", [](const http::RequestHead&) { return Text(200, "ok\n"); });
  add("/readyz", [from](const http::RequestHead&) {
    return from->ready() ? Text(200, "ok\n") : Text(503, "not ready\n");
  });
  if (!from->explain) return;
  add("/debug/decisions/*",
      [from](const http::RequestHead& head) { return ExplainResponse(*from, head.path()); });
}

}  // namespace llmd::services
