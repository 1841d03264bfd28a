#include <algorithm>
#include <string>

#include "llmd/http/server.h"

namespace llmd::http {
namespace {

Task<void> AnswerNotFound(Exchange& exchange) {
  Response answer = JsonResponse(404, R"({"detail":"Not Found"})");
  (void)co_await exchange.Send(std::move(answer));
}

Task<void> AnswerMethodNotAllowed(Exchange& exchange, std::string allow) {
  Response answer = JsonResponse(405, R"({"detail":"Method Not Allowed"})");
  answer.head.headers.Set("Allow", allow);
  (void)co_await exchange.Send(std::move(answer));
}

bool IsPrefixRoute(std::string_view pattern) {
  return pattern.ends_with("/*");
}

bool Matches(std::string_view pattern, std::string_view path) {
  return IsPrefixRoute(pattern) ? path.starts_with(pattern.substr(0, pattern.size() - 1))
                                : path == pattern;
}

// "." or "..", also with percent-encoded dots: such a segment could climb out of a prefix at the
// next hop.
bool HasDotSegment(std::string_view path) {
  while (!path.empty()) {
    path.remove_prefix(1);
    const size_t end = std::min(path.find('/'), path.size());
    std::string_view segment = path.substr(0, end);
    size_t dots = 0;
    while (!segment.empty()) {
      const bool encoded = segment.starts_with("%2e") || segment.starts_with("%2E");
      if (!encoded && segment.front() != '.') break;
      segment.remove_prefix(encoded ? 3 : 1);
      ++dots;
    }
    if (segment.empty() && (dots == 1 || dots == 2)) return true;
    path.remove_prefix(end);
  }
  return false;
}

}  // namespace

void Router::Add(std::string_view method, std::string_view path, Handler handler) {
  routes_.push_back({std::string(method), std::string(path), std::move(handler)});
}

void Router::NotFound(Handler handler) {
  not_found_ = std::move(handler);
}

void Router::MethodNotAllowed(Handler handler) {
  method_not_allowed_ = std::move(handler);
}

Handler Router::AsHandler() const {
  return [this](Exchange& exchange) -> Task<void> { return Dispatch(exchange); };
}

Task<void> Router::Dispatch(Exchange& exchange) const {
  const std::string_view path = exchange.request().path();
  const std::string& method = exchange.request().method;
  const bool exact_only = HasDotSegment(path);
  const Route* best = nullptr;
  std::string allow;
  for (const Route& route : routes_) {
    if (!Matches(route.path, path) || (exact_only && IsPrefixRoute(route.path))) continue;
    if (route.method == method || (method == "HEAD" && route.method == "GET")) {
      // The longest pattern wins; an exact one is never shorter than a prefix that matches too.
      const bool better =
          !best || (IsPrefixRoute(best->path) &&
                    (!IsPrefixRoute(route.path) || route.path.size() > best->path.size()));
      if (better) best = &route;
    }
    allow.append(allow.empty() ? "" : ", ").append(route.method);
    if (route.method == "GET") allow.append(", HEAD");
  }
  if (best) return best->handler(exchange);
  if (allow.empty()) return not_found_ ? not_found_(exchange) : AnswerNotFound(exchange);
  return method_not_allowed_ ? method_not_allowed_(exchange)
                             : AnswerMethodNotAllowed(exchange, std::move(allow));
}

Response JsonResponse(int status, std::string body) {
  Response response;
  response.head.status = status;
  response.head.headers.Add("Content-Type", "application/json");
  response.body = std::move(body);
  return response;
}

}  // namespace llmd::http
