// The routes of llmd-engine over the serving library: who may call, what is logged, which function
// answers.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "engine/http_metrics.h"
#include "engine/observed_exchange.h"
#include "engine/settings.h"
#include "llmd/engine/serving/metrics.h"
#include "llmd/engine/serving/reply.h"
#include "llmd/http/server.h"
#include "llmd/worker_pool.h"

namespace llmd::services {

// References must outlive it, and it must outlive the HTTP server. Thread-safe.
class EngineServer {
 public:
  EngineServer(const EngineSettings& settings, engine::serving::ServingContext& context,
               engine::serving::ServingMetrics& metrics, HttpMetrics& http, WorkerPool& workers,
               Logger logger);

  http::Handler AsHandler();
  // For requests that no route sees: counts and logs them, and gives them an id.
  http::RefusalHook AsRefusalHook();
  // From now on /health/ready says 503, so that no new traffic comes.
  void BeginDrain() { draining_.store(true); }

  const engine::serving::ServingContext& context() const { return context_; }
  WorkerPool& workers() { return workers_; }

 private:
  using Begin = openai::MaybeError (*)(const engine::serving::ServingContext&, std::string_view,
                                       const engine::serving::RequestMeta&,
                                       std::unique_ptr<engine::serving::Reply>*);
  using Convert = openai::MaybeError (*)(const engine::serving::ServingContext&, std::string_view,
                                         std::string*);
  using Answer = std::function<http::Response()>;

  void AddRoutes();
  void Route(std::string_view method, std::string_view path, http::Handler handler);
  void AddGenerate(std::string_view path, Begin begin);
  void AddConvert(std::string_view path, Convert convert);
  void AddAnswer(std::string_view method, std::string_view path, Answer answer);
  // A handler and what its requests are counted under.
  struct Guarding {
    http::Handler handler;
    std::string route;
  };
  http::Handler Guarded(http::Handler handler, std::string_view route);

  static http::Task<void> Guard(EngineServer& server, const Guarding& guarding,
                                http::Exchange& exchange);
  static http::Task<void> Generate(EngineServer& server, Begin begin, http::Exchange& exchange);
  static http::Task<void> ConvertBody(EngineServer& server, Convert convert,
                                      http::Exchange& exchange);

  bool Authorized(const http::RequestHead& head) const;
  void Note(const http::Exchange& exchange, const Observed& observed, std::string_view route,
            Duration took) const;
  void LogAccess(const http::Exchange& exchange, const Observed& observed, std::string_view route,
                 Duration took) const;
  engine::serving::RequestMeta Meta(const http::RequestHead& head) const;
  http::Response Health() const;
  http::Response Ready() const;

  const EngineSettings& settings_;
  engine::serving::ServingContext& context_;
  engine::serving::ServingMetrics& metrics_;
  HttpMetrics& http_;
  WorkerPool& workers_;
  Logger logger_;
  http::Router router_;
  std::atomic<bool> draining_{false};
  std::atomic<int> load_{0};
};

// "application/json", with or without parameters.
bool IsJson(const http::RequestHead& head);

}  // namespace llmd::services
