#include "engine/server.h"

#include <algorithm>
#include <charconv>

#include "llmd/openai/error.h"
#include "llmd/uuid.h"

namespace llmd::services {
namespace {

namespace serving = engine::serving;

bool EqualSecrets(std::string_view a, std::string_view b) {
  // Takes as long for every guess of the right length, so that time does not tell how much was
  // right.
  unsigned char different = a.size() == b.size() ? 0 : 1;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    different |= static_cast<unsigned char>(a[i] ^ b[i]);
  }
  return different == 0;
}

bool NeedsKey(std::string_view path) {
  for (const std::string_view prefix : {"/v1", "/v2", "/inference", "/cohere"}) {
    if (path.starts_with(prefix)) return true;
  }
  return false;
}

http::Response Empty(int status) {
  http::Response response;
  response.head.status = status;
  return response;
}

std::string RequestId(const http::RequestHead& head) {
  if (const auto id = head.headers.Get("X-Request-Id"); id && !id->empty()) return std::string(*id);
  std::string id = NewUuid();
  std::erase(id, '-');
  return id;
}

http::Response MetricsPage(serving::ServingMetrics& metrics) {
  http::Response response;
  response.head.headers.Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8");
  response.body = metrics.Expose();
  return response;
}

// 0 = the client left; 500 where no handler answered.
int StatusOf(const http::Exchange& exchange, const Observed& observed) {
  return observed.status != 0 || exchange.client_gone() ? observed.status : 500;
}

http::Task<void> SendAnswer(http::Exchange& exchange, http::Response response) {
  (void)co_await exchange.Send(std::move(response));
}

}  // namespace

bool IsJson(const http::RequestHead& head) {
  const auto type = head.headers.Get("Content-Type");
  if (!type) return false;
  std::string_view media = type->substr(0, type->find(';'));
  while (!media.empty() && media.back() == ' ') media.remove_suffix(1);
  return http::EqualsIgnoreCase(media, "application/json");
}

EngineServer::EngineServer(const EngineSettings& settings, serving::ServingContext& context,
                           serving::ServingMetrics& metrics, HttpMetrics& http, WorkerPool& workers,
                           Logger logger)
    : settings_(settings),
      context_(context),
      metrics_(metrics),
      http_(http),
      workers_(workers),
      logger_(std::move(logger)) {
  AddRoutes();
}

void EngineServer::Route(std::string_view method, std::string_view path, http::Handler handler) {
  http::Handler guarded = Guarded(std::move(handler), path);
  router_.Add(method, path, guarded);
  if (!settings_.root_path.empty())
    router_.Add(method, settings_.root_path + std::string(path), guarded);
}

void EngineServer::AddGenerate(std::string_view path, Begin begin) {
  Route("POST", path,
        [this, begin](http::Exchange& exchange) { return Generate(*this, begin, exchange); });
}

void EngineServer::AddConvert(std::string_view path, Convert convert) {
  Route("POST", path, [this, convert](http::Exchange& exchange) {
    return ConvertBody(*this, convert, exchange);
  });
}

void EngineServer::AddAnswer(std::string_view method, std::string_view path, Answer answer) {
  Route(method, path, [answer = std::move(answer)](http::Exchange& exchange) {
    return SendAnswer(exchange, answer());
  });
}

void EngineServer::AddRoutes() {
  AddGenerate("/v1/completions", serving::BeginCompletion);
  AddGenerate("/v1/chat/completions", serving::BeginChat);
  AddConvert("/tokenize", serving::Tokenize);
  AddConvert("/detokenize", serving::Detokenize);
  AddAnswer("GET", "/v1/models",
            [this] { return http::JsonResponse(200, serving::ModelsBody(context_)); });
  AddAnswer("GET", "/health", [this] { return Health(); });
  AddAnswer("GET", "/ping", [this] { return Health(); });
  AddAnswer("POST", "/ping", [this] { return Health(); });
  AddAnswer("GET", "/health/ready", [this] { return Ready(); });
  AddAnswer("GET", "/version",
            [] { return http::JsonResponse(200, R"({"version":")" LLMD_VERSION R"("})"); });
  AddAnswer("GET", "/load", [this] {
    return http::JsonResponse(200, R"({"server_load":)" + std::to_string(load_.load()) + "}");
  });
  AddAnswer("GET", "/metrics", [this] { return MetricsPage(metrics_); });
  if (settings_.dev_mode) {
    AddAnswer("POST", "/reset_prefix_cache", [this] {
      const bool ok = context_.engine.ResetPrefixCache().ok();
      return http::JsonResponse(200, ok ? R"({"success":true})" : R"({"success":false})");
    });
  }
  router_.NotFound(Guarded(
      [](http::Exchange& exchange) {
        return SendAnswer(exchange, http::JsonResponse(404, R"({"detail":"Not Found"})"));
      },
      "none"));
}

http::Handler EngineServer::AsHandler() {
  return router_.AsHandler();
}

http::RefusalHook EngineServer::AsRefusalHook() {
  return [this](int status, std::string_view message, const std::string& peer) {
    const size_t reason = RefusalReason(status, message);
    http_.Refused(reason);
    std::string id = NewUuid();
    if (settings_.access_log) {
      logger_.Info("request refused", {{"x-request-id", id},
                                       {"client", peer},
                                       {"status", status},
                                       {"refused", kRefusalReasons[reason]},
                                       {"error", message}});
    }
    return id;
  };
}

http::Handler EngineServer::Guarded(http::Handler handler, std::string_view route) {
  auto shared = std::make_shared<const Guarding>(Guarding{std::move(handler), std::string(route)});
  return [this, shared](http::Exchange& exchange) { return Guard(*this, *shared, exchange); };
}

http::Task<void> EngineServer::Guard(EngineServer& server, const Guarding& guarding,
                                     http::Exchange& exchange) {
  std::string request_id;
  if (server.settings_.enable_request_id_headers) request_id = RequestId(exchange.request());
  ObservedExchange observed(exchange, std::move(request_id), server.context_.clock);
  if (server.Authorized(exchange.request())) {
    co_await guarding.handler(observed);
  } else {
    http::Response refused = http::JsonResponse(401, R"({"error":"Unauthorized"})");
    (void)co_await observed.Send(std::move(refused));
  }
  observed.observed.status = StatusOf(exchange, observed.observed);
  server.Note(exchange, observed.observed, guarding.route, observed.elapsed());
}

void EngineServer::Note(const http::Exchange& exchange, const Observed& observed,
                        std::string_view route, Duration took) const {
  http_.Request({.handler = route,
                 .method = exchange.request().method,
                 .status = observed.status,
                 .took = took,
                 .request_bytes = observed.request_bytes,
                 .answer_bytes = observed.answer_bytes});
  if (settings_.access_log) LogAccess(exchange, observed, route, took);
}

bool EngineServer::Authorized(const http::RequestHead& head) const {
  if (settings_.api_keys.empty() || head.method == "OPTIONS" || !NeedsKey(head.path())) return true;
  constexpr std::string_view kBearer = "Bearer ";
  const std::string_view given = head.headers.Get("Authorization").value_or("");
  if (given.size() < kBearer.size() ||
      !http::EqualsIgnoreCase(given.substr(0, kBearer.size()), kBearer))
    return false;
  return std::any_of(
      settings_.api_keys.begin(), settings_.api_keys.end(),
      [&](const std::string& key) { return EqualSecrets(given.substr(kBearer.size()), key); });
}

// The line is uvicorn's; what it cannot tell stands in fields.
void EngineServer::LogAccess(const http::Exchange& exchange, const Observed& observed,
                             std::string_view route, Duration took) const {
  const auto seconds = [](Duration d) { return std::chrono::duration<double>(d).count(); };
  const http::RequestHead& head = exchange.request();
  std::string line = "INFO:     " + exchange.peer() + " - \"" + head.method + " " + head.target +
                     " HTTP/1." + std::to_string(head.version_minor) + "\" " +
                     std::to_string(observed.status) + " ";
  line += http::ReasonPhrase(observed.status);
  const auto id = head.headers.Get("X-Request-Id");
  const auto parent = head.headers.Get("traceparent");
  const bool traced = parent && ParseTraceparent(*parent);
  const auto known = [](int n) { return n < 0 ? json::Value() : json::Value(n); };
  logger_.Info(
      line, {{"x-request-id", id ? json::Value(std::string(*id)) : json::Value()},
             {"traceId", traced ? json::Value(std::string(parent->substr(3, 32))) : json::Value()},
             {"client", exchange.peer()},
             {"method", head.method},
             {"path", std::string(head.path())},
             {"route", route},
             {"model", observed.model.empty() ? json::Value() : json::Value(observed.model)},
             {"status", observed.status},
             {"ttftSeconds", seconds(observed.ttft)},
             {"seconds", seconds(took)},
             {"requestBytes", static_cast<int64_t>(observed.request_bytes)},
             {"bytes", static_cast<int64_t>(observed.answer_bytes)},
             {"promptTokens", known(observed.prompt_tokens)},
             {"completionTokens", known(observed.completion_tokens)},
             {"clientGone", exchange.client_gone()}});
}

serving::RequestMeta EngineServer::Meta(const http::RequestHead& head) const {
  serving::RequestMeta meta;
  meta.arrival = context_.clock.Now();
  meta.request_id = head.headers.Get("X-Request-Id").value_or("");
  if (context_.tracer != nullptr) {
    const auto parent = ParseTraceparent(head.headers.Get("traceparent").value_or(""));
    meta.trace = context_.tracer->Start(parent);
    meta.trace_parent = parent ? parent->span_id : 0;
  }
  if (const auto text = head.headers.Get("X-Vllm-Priority")) {
    int priority = 0;
    const auto end = std::from_chars(text->data(), text->data() + text->size(), priority);
    if (end.ec == std::errc() && end.ptr == text->data() + text->size()) meta.priority = priority;
  }
  return meta;
}

http::Response EngineServer::Health() const {
  return Empty(context_.engine.healthy() ? 200 : 503);
}

http::Response EngineServer::Ready() const {
  return Empty(context_.engine.healthy() && !draining_.load() ? 200 : 503);
}

}  // namespace llmd::services
