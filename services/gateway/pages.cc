#include "gateway/pages.h"

#include "gateway/page_for_clients.h"
#include "llmd/json.h"
#include "llmd/version.h"

namespace llmd::gateway {
namespace {

http::Response Page(int status, std::string body, std::string_view type) {
  http::Response response;
  response.head.status = status;
  if (!body.empty()) response.head.headers.Add("Content-Type", type);
  response.body = std::move(body);
  return response;
}

http::Response Text(int status, std::string body) {
  return Page(status, std::move(body), "text/plain; charset=utf-8");
}

// What stands at /: who this is and where to go on.
http::Response Welcome(std::string_view) {
  const json::Value links = json::Object{{"models", "/v1/models"},
                                         {"chat", "/v1/chat/completions"},
                                         {"completions", "/v1/completions"},
                                         {"health", "/health"},
                                         {"ready", "/ready"},
                                         {"metrics", "/metrics"}};
  const json::Value body =
      json::Object{{"name", "llmd-gateway"}, {"version", LLMD_VERSION_STRING}, {"links", links}};
  return Page(200, body.DumpPretty() + "\n", "application/json");
}

}  // namespace

std::vector<LocalPage> ClientPages(const PageSources& sources) {
  const std::function<bool()> ready = sources.ready;
  std::vector<LocalPage> pages;
  const auto add = [&pages](const char* path, auto make) { pages.push_back({path, make}); };
  add("/", Welcome);
  add("/health", [](std::string_view) { return Text(200, ""); });
  add("/healthz", [](std::string_view) { return Text(200, "ok\n"); });
  add("/ready", [ready](std::string_view) { return Text(ready() ? 200 : 503, ""); });
  add("/readyz",
      [ready](std::string_view) { return ready() ? Text(200, "ok\n") : Text(503, "not ready\n"); });
  add("/metrics", [metrics = sources.metrics](std::string_view) {
    return Page(200, PageForClients(metrics()), "text/plain; version=0.0.4; charset=utf-8");
  });
  pages.back().slow = true;
  return pages;
}

}  // namespace llmd::gateway
