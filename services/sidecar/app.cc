#include "sidecar/app.h"

#include <atomic>
#include <memory>

#include "common/flags.h"
#include "common/process.h"
#include "common/tls_flags.h"
#include "llmd/http/client.h"
#include "llmd/http/server.h"
#include "llmd/kv/transfer.h"
#include "llmd/worker_pool.h"
#include "sidecar/options.h"
#include "sidecar/proxy.h"
#include "sidecar/sidecar_metrics.h"

namespace llmd::sidecar {
namespace {

constexpr auto kReleaseTimeout = std::chrono::seconds(2);
constexpr auto kProbeInterval = std::chrono::seconds(1);

// Members die in reverse order: servers before what they call.
struct App {
  Options options;
  std::shared_ptr<FdLog> log = services::StdoutLog();
  Logger logger;
  MetricsRegistry metrics;
  std::shared_ptr<const void> log_metrics;
  std::unique_ptr<WorkerPool> workers;
  std::unique_ptr<http::Runtime> runtime;
  std::unique_ptr<SidecarMetrics> counters;
  std::unique_ptr<http::Client> prefiller, decoder;
  std::unique_ptr<Proxy> proxy;
  std::unique_ptr<http::Server> server, metrics_server;
};

// Named functors: a capturing lambda must not be a coroutine.
struct Serve {
  Proxy* proxy;
  http::Task<void> operator()(http::Exchange& exchange) const { co_await proxy->Handle(exchange); }
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

// Says what the sidecar waits for until the engine has answered once.
http::Task<void> WatchEngine(Proxy& proxy, Logger logger) {
  for (;;) {
    const Status status = co_await proxy.CheckEngine();
    if (status.ok()) break;
    if (status.code() == StatusCode::kCancelled) co_return;
    logger.Info("waiting for vLLM to be ready", {{"err", status.message()}});
    const Status slept = co_await http::SleepFor(kProbeInterval);
    if (!slept.ok()) co_return;
  }
  logger.Info("engine is ready");
}

ReleaseFn MakeRelease(App& app) {
  return [&app](const pd::LenderAddress& lender) {
    const Status queued = app.workers->Submit([&app, lender] {
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

StatusOr<std::unique_ptr<http::Client>> MakeClient(App& app, const Leg& leg) {
  http::ClientOptions options;
  options.max_idle_per_host = static_cast<size_t>(app.options.max_idle_per_host);
  if (leg.tls) {
    LLMD_ASSIGN_OR_RETURN(options.tls,
                          http::TlsContext::CreateClient({.verify = !leg.skip_verify}));
  }
  return std::make_unique<http::Client>(*app.runtime, options);
}

// Empty for clear text.
StatusOr<http::TlsProvider> MakeTls(const App& app) {
  const Options& o = app.options;
  if (!o.secure_proxy) return http::TlsProvider();
  const services::TlsFlags flags{.cert_path = o.cert_path, .reload = !o.cert_path.empty()};
  LLMD_ASSIGN_OR_RETURN(auto source, services::MakeCertificateSource(flags, o.host, app.logger));
  return services::MakeTlsProvider(std::move(source));
}

StatusOr<std::unique_ptr<http::Server>> Listen(App& app, uint16_t port, http::Handler handler,
                                               http::TlsProvider tls = {}) {
  http::ServerOptions options;
  options.host = app.options.host;
  options.port = port;
  options.max_body_bytes = static_cast<size_t>(app.options.max_body_bytes);
  options.tls = std::move(tls);
  return http::Server::Create(*app.runtime, options, std::move(handler), app.logger);
}

Status Start(App& app) {
  WorkerPool::Options workers;
  workers.name = "release";
  LLMD_ASSIGN_OR_RETURN(app.workers, WorkerPool::Create(workers));
  LLMD_ASSIGN_OR_RETURN(app.runtime,
                        http::Runtime::Create(static_cast<int>(app.options.loop_threads)));
  app.counters = std::make_unique<SidecarMetrics>(app.metrics);
  app.log_metrics = services::AddLogMetrics(app.metrics, app.log);
  LLMD_ASSIGN_OR_RETURN(app.prefiller, MakeClient(app, app.options.prefiller));
  LLMD_ASSIGN_OR_RETURN(app.decoder, MakeClient(app, app.options.decoder));
  app.proxy = std::make_unique<Proxy>(*app.prefiller, *app.decoder, app.options, *app.counters,
                                      MakeRelease(app), app.logger);
  LLMD_ASSIGN_OR_RETURN(http::TlsProvider tls, MakeTls(app));
  LLMD_ASSIGN_OR_RETURN(app.server,
                        Listen(app, app.options.port, Serve{app.proxy.get()}, std::move(tls)));
  if (app.options.metrics_port == 0) return OkStatus();
  auto metrics = Listen(app, app.options.metrics_port, Metrics{&app.metrics});
  if (!metrics.ok()) return metrics.status().WithContext("--metrics-port");
  app.metrics_server = *std::move(metrics);
  return OkStatus();
}

void Drain(App& app) {
  app.logger.Info("draining", {{"timeoutSeconds",
                                std::chrono::duration<double>(app.options.drain_timeout).count()}});
  app.server->Stop(app.options.drain_timeout);
  if (app.metrics_server) app.metrics_server->Stop(Duration::zero());
  app.workers->Stop();
  app.runtime->Stop();
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
  app.logger.Info("starting", {{"addr", o.host + ":" + std::to_string(app.server->port())},
                               {"port", int{app.server->port()}}});
}

}  // namespace

int RunSidecar(int argc, const char* const* argv) {
  services::BlockSignals();
  auto app = std::make_unique<App>();
  services::FlagSet set = MakeFlags(app->options);
  const services::FlagSet::Outcome outcome = set.Parse(argc, argv);
  if (outcome.exit) return outcome.code;
  if (const Status status = Validate(app->options); !status.ok()) return services::Fail(status), 2;
  const std::string name = "proxy server on port " + std::to_string(app->options.port);
  app->logger =
      services::MakeLogger(app->log, static_cast<int>(app->options.verbosity)).Named(name);
  for (const std::string& warning : outcome.warnings) app->logger.Warn(warning);
  services::RaiseDescriptorLimit(app->logger);
  if (const Status status = Start(*app); !status.ok()) return services::Fail(status);
  LogStart(*app);
  app->runtime->Spawn(WatchEngine(*app->proxy, app->logger));
  services::WaitForSignal();
  Drain(*app);
  return 0;
}

}  // namespace llmd::sidecar
