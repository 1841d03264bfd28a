#include "sidecar/app.h"

#include <atomic>
#include <functional>
#include <memory>

#include "common/access_log.h"
#include "common/flags.h"
#include "common/process.h"
#include "common/relay_tls.h"
#include "common/tracing.h"
#include "llmd/http/relay/relay.h"
#include "llmd/http/server.h"
#include "llmd/kv/transfer.h"
#include "llmd/worker_pool.h"
#include "sidecar/options.h"
#include "sidecar/policy.h"
#include "sidecar/sidecar_metrics.h"

namespace llmd::sidecar {
namespace {

constexpr auto kReleaseTimeout = std::chrono::seconds(2);
// Both wait for others, so that some run at once; apart, so that lenders that are gone hold up no
// look-up.
constexpr size_t kReleaseThreads = 2, kLookUpThreads = 2;

// Members die in reverse order: servers before what they call.
struct App {
  Options options;
  std::shared_ptr<FdLog> log = services::StdoutLog();
  Logger logger;
  MetricsRegistry metrics;
  std::shared_ptr<const void> log_metrics;
  std::unique_ptr<SidecarMetrics> counters;
  std::unique_ptr<services::AccessLog> access_log;  // null = none
  std::unique_ptr<http::Runtime> runtime;           // of the metrics port and the tracer
  std::unique_ptr<Tracer> tracer;                   // null when nothing is traced
  // Set when we end: what still waits for a worker then does not run.
  std::atomic<TimePoint> work_until{TimePoint::max()};
  std::unique_ptr<WorkerPool> releasing, looking_up, scanning;
  std::unique_ptr<Shared> shared;
  std::unique_ptr<relay::Relay> relay;
  std::shared_ptr<const void> handshake_metrics;
  std::unique_ptr<http::Server> metrics_server;
};

struct Metrics {
  const MetricsRegistry* metrics;
  http::Task<void> operator()(http::Exchange& exchange) const {
    http::Response response;
    response.head.headers.Add("Content-Type", "text/plain; version=0.0.4; charset=utf-8");
    response.body = metrics->Expose();
    (void)co_await exchange.Send(std::move(response));
  }
};

bool TooLate(const App& app) {
  return SystemClock().Now() >= app.work_until.load();
}

std::function<void(pd::LenderAddress)> MakeRelease(App& app) {
  return [&app](const pd::LenderAddress& lender) {
    const Status queued = app.releasing->Submit([&app, lender] {
      if (TooLate(app)) return app.counters->release_failed.Add();
      const Status status = kv::ReleaseLease(lender.engine_id, lender.host, lender.port,
                                             lender.request_id, kReleaseTimeout);
      // The decode engine may have said so before.
      const bool over = status.ok() || status.code() == StatusCode::kNotFound;
      (over ? app.counters->released : app.counters->release_failed).Add();
      if (!over)
        app.logger.Warn("prefiller was not told; its lease will expire",
                        {{"err", status.ToString()}});
    });
    if (!queued.ok()) app.counters->release_failed.Add();
  };
}

// Empty for clear text.
StatusOr<http::TlsProvider> TlsOf(App& app, const Leg& leg, const char* side) {
  if (!leg.tls) return http::TlsProvider();
  return services::MakeUpstreamTls(app.options.upstream, !leg.skip_verify, side, app.logger,
                                   app.metrics);
}

Status MakeShared(App& app) {
  LLMD_ASSIGN_OR_RETURN(app.releasing,
                        WorkerPool::Create({.name = "release", .threads = kReleaseThreads}));
  LLMD_ASSIGN_OR_RETURN(app.looking_up,
                        WorkerPool::Create({.name = "look-up", .threads = kLookUpThreads}));
  LLMD_ASSIGN_OR_RETURN(app.scanning, WorkerPool::Create({.name = "scan"}));
  app.counters = std::make_unique<SidecarMetrics>(app.metrics);
  app.log_metrics = services::AddLogMetrics(app.metrics, app.log);
  if (app.options.access_log) {
    app.access_log = services::AccessLog::Create(
        app.log, static_cast<int>(app.options.loop_threads), app.metrics);
  }
  app.shared = std::make_unique<Shared>(
      Shared{.options = app.options,
             .metrics = *app.counters,
             .observed = {app.counters->by_route, app.access_log.get(), app.tracer.get()},
             .logger = app.logger});
  LLMD_ASSIGN_OR_RETURN(app.shared->prefiller_tls, TlsOf(app, app.options.prefiller, "prefiller"));
  LLMD_ASSIGN_OR_RETURN(app.shared->decoder_tls, TlsOf(app, app.options.decoder, "decoder"));
  app.shared->server_name = app.options.upstream.server_name;
  app.shared->release = MakeRelease(app);
  app.shared->look_up = relay::Target::Resolve;
  app.shared->look_up_on = [&app](std::function<void()> job) {
    return app.looking_up->Submit([&app, job = std::move(job)] {
      if (!TooLate(app)) job();
    });
  };
  app.shared->scan = [&app](std::function<void()> job) {
    return app.scanning->Submit(std::move(job));
  };
  return OkStatus();
}

Status StartRelay(App& app) {
  relay::RelayOptions options;
  options.server.host = app.options.host;
  options.server.port = app.options.port;
  options.server.max_body_bytes = static_cast<size_t>(app.options.max_body_bytes);
  services::ServingTlsFlags serving = app.options.serving;
  serving.secure = app.options.secure_proxy;
  LLMD_ASSIGN_OR_RETURN(options.server.tls, services::MakeServingTls(serving, app.options.host,
                                                                     app.logger, app.metrics));
  options.loops = static_cast<int>(app.options.loop_threads);
  options.max_idle_per_upstream = static_cast<size_t>(app.options.max_idle_per_host);
  const auto policies = [&app](relay::Loop& loop) {
    return std::make_unique<SidecarPolicy>(loop, *app.shared);
  };
  LLMD_ASSIGN_OR_RETURN(app.relay, relay::Relay::Create(std::move(options), policies, app.logger));
  app.handshake_metrics =
      services::AddHandshakeMetrics(app.metrics, [&app] { return app.relay->Stats(); });
  return OkStatus();
}

Status StartMetrics(App& app) {
  if (app.options.metrics_port == 0) return OkStatus();
  http::ServerOptions options;
  options.host = app.options.host;
  options.port = app.options.metrics_port;
  auto server = http::Server::Create(*app.runtime, options, Metrics{&app.metrics}, app.logger);
  if (!server.ok()) return server.status().WithContext("--metrics-port");
  app.metrics_server = *std::move(server);
  return OkStatus();
}

Status StartTracing(App& app) {
  if (!app.options.tracing && app.options.metrics_port == 0) return OkStatus();
  LLMD_ASSIGN_OR_RETURN(app.runtime, http::Runtime::Create(1));
  if (!app.options.tracing) return OkStatus();
  LLMD_ASSIGN_OR_RETURN(app.tracer, services::MakeTracer(*app.runtime, app.metrics, app.logger,
                                                         {.service_name = "llmd-sidecar",
                                                          .asked = app.options.tracing_given}));
  if (app.tracer || app.options.metrics_port != 0) return OkStatus();
  app.runtime->Stop();
  app.runtime.reset();
  return OkStatus();
}

Status Start(App& app) {
  LLMD_RETURN_IF_ERROR(StartTracing(app));
  LLMD_RETURN_IF_ERROR(MakeShared(app));
  LLMD_RETURN_IF_ERROR(StartMetrics(app));
  return StartRelay(app);
}

void Drain(App& app) {
  app.logger.Info("draining", {{"timeoutSeconds",
                                std::chrono::duration<double>(app.options.drain_timeout).count()}});
  app.relay->Stop(app.options.drain_timeout);
  app.work_until = SystemClock().Now() + kReleaseTimeout;
  if (app.metrics_server) app.metrics_server->Stop(Duration::zero());
  app.scanning->Stop();
  app.looking_up->Stop();
  app.releasing->Stop();
  if (app.tracer) app.tracer->Stop();
  if (app.runtime) app.runtime->Stop();
}

void LogStart(App& app) {
  const Options& o = app.options;
  app.logger.Info("Proxy starting");
  app.logger.Info("Proxy configuration",
                  {{"engine", std::string(o.decoder.scheme()) + "://" + o.model_server_host + ":" +
                                  std::to_string(o.model_server_port)},
                   {"secure-proxy", o.secure_proxy},
                   {"kv-connector", o.kv_connector},
                   {"prefill-failure-policy", o.failure_policy},
                   {"prefill-max-retries", o.prefill_max_retries}});
  app.logger.Info("starting", {{"addr", o.host + ":" + std::to_string(app.relay->port())},
                               {"port", int{app.relay->port()}}});
}

}  // namespace

int RunSidecar(int argc, const char* const* argv) {
  services::BlockSignals();
  auto app = std::make_unique<App>();
  services::FlagSet set = MakeFlags(app->options);
  const services::FlagSet::Outcome outcome = set.Parse(argc, argv);
  if (outcome.exit) return outcome.code;
  app->options.tracing_given = outcome.Given("tracing");
  if (const Status status = Validate(app->options); !status.ok()) return services::Fail(status), 2;
  const std::string name = "proxy server on port " + std::to_string(app->options.port);
  app->logger =
      services::MakeLogger(app->log, static_cast<int>(app->options.verbosity)).Named(name);
  for (const std::string& warning : outcome.warnings) app->logger.Warn(warning);
  services::RaiseDescriptorLimit(app->logger);
  if (const Status status = Start(*app); !status.ok()) return services::Fail(status);
  LogStart(*app);
  services::WaitForSignal();
  Drain(*app);
  return 0;
}

}  // namespace llmd::sidecar
