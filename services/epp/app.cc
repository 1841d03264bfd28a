#include "epp/app.h"

#include <absl/synchronization/mutex.h>
#include <grpcpp/grpcpp.h>

#include <memory>
#include <thread>

#include "common/admin.h"
#include "common/admin_server.h"
#include "common/flags.h"
#include "common/http_fetch.h"
#include "common/picker_flags.h"
#include "common/pools.h"
#include "common/process.h"
#include "common/scrape_fetch.h"
#include "common/tls_flags.h"
#include "common/tracing.h"
#include "epp/ext_proc_service.h"
#include "epp/health_service.h"
#include "epp/tls_credentials.h"

namespace llmd::epp {
namespace {

using services::Fail;

// After the drain time: for the refusals to reach the proxy.
constexpr auto kLastAnswers = std::chrono::milliseconds(200);
using services::FlagSet;

struct Flags {
  services::PickerFlags picker;
  std::string host = "127.0.0.1";
  uint16_t grpc_port = 9002, health_port = 9003;
  int64_t max_recv = 4 << 20, max_send = 64 << 20;
  int64_t max_streams = 40'000, threads = 0;
  services::TlsFlags tls;
  bool health_checking = false, token_metrics = true;
};

FlagSet MakeFlags(Flags& flags) {
  FlagSet set("llmd-epp",
              "Endpoint picker for Envoy: chooses the model server for each request (ext_proc).");
  services::AddPickerFlags(set, flags.picker);
  set.String("grpc-host", &flags.host, "address of the gRPC ports");
  set.Port("grpc-port", &flags.grpc_port, "ext_proc port; 0 = any");
  set.Port("grpc-health-port", &flags.health_port, "gRPC health port; 0 = any");
  set.Int("grpc-max-recv-msg-size", &flags.max_recv, 1, INT32_MAX,
          "largest gRPC message taken, bytes");
  set.Int("grpc-max-send-msg-size", &flags.max_send, 1, INT32_MAX,
          "largest gRPC message sent, bytes");
  set.Int("ext-proc-threads", &flags.threads, 0, 64,
          "threads that serve ext_proc streams; 0 = one per four cores");
  set.Int("max-streams", &flags.max_streams, 1, INT32_MAX,
          "open requests; one more gets 429 (Envoy's circuit breaker in deploy/envoy is the same)");
  set.Bool(
      "token-metrics", &flags.token_metrics,
      "read every response body for the metrics of tokens, first chunks and sizes; false: only "
      "where a plugin needs it");
  set.Bool("health-checking", &flags.health_checking,
           "health service on the ext_proc port too (Envoy's check needs it)");
  services::AddTlsFlags(set, flags.tls);
  set.Accepted("enable-grpc-stream-metrics", false, "stream metrics are always on");
  return set;
}

struct Listener {
  std::shared_ptr<grpc::ServerCredentials> credentials;  // asked at each handshake
  std::unique_ptr<grpc::Server> server;
  int port = 0;
};

StatusOr<Listener> Listen(const Flags& flags, uint16_t port, grpc::Service* service,
                          const std::function<void(grpc::ServerBuilder&)>& add_queues,
                          const char* flag, std::shared_ptr<grpc::ServerCredentials> credentials) {
  Listener listener;
  listener.credentials = std::move(credentials);
  grpc::ServerBuilder builder;
  const std::string address = flags.host + ":" + std::to_string(port);
  builder.AddListeningPort(address, listener.credentials, &listener.port);
  builder.SetMaxReceiveMessageSize(static_cast<int>(flags.max_recv));
  builder.SetMaxSendMessageSize(static_cast<int>(flags.max_send));
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  if (service != nullptr) builder.RegisterService(service);
  add_queues(builder);
  listener.server = builder.BuildAndStart();
  if (listener.server == nullptr || listener.port == 0) {
    return AlreadyExists(std::string(flag) + ": cannot listen on " + address +
                         ": address in use or not available");
  }
  return listener;
}

// Everything that runs, in the order in which it is taken down (members die in reverse).
struct App {
  std::shared_ptr<FdLog> log = services::StdoutLog();
  Logger logger;
  MetricsRegistry metrics;
  std::shared_ptr<const void> log_metrics;
  std::unique_ptr<http::Runtime> runtime;
  std::shared_ptr<sched::Fetch> fetch;
  std::unique_ptr<Tracer> tracer;  // null when nothing is traced
  std::unique_ptr<services::Pools> pools;
  std::atomic<bool> serving{false};  // the ports are open, and it does not drain
  services::AdminSources admin_sources;
  http::Router admin_router;
  std::unique_ptr<http::Server> admin;
  std::unique_ptr<ExtProcService> ext_proc;
  std::unique_ptr<HealthService> health, own_health;  // beside ext_proc, and on a port of its own
  CallQueues health_queues{"grpc-health", std::chrono::milliseconds(50)};
  Listener grpc, grpc_health;

  sched::Director& director() { return pools->director(); }
};

Status StartAdmin(App& app, const Flags& flags) {
  app.admin_sources.metrics = [&app] { return app.pools->Expose(); };
  app.admin_sources.pool_ready = [&app](std::string_view pool) {
    return app.serving && app.pools->ready(pool);
  };
  app.admin_sources.ready = [&app] { return app.admin_sources.pool_ready(""); };
  app.admin_sources.explain = [&app](std::string_view id) { return app.director().Explain(id); };
  app.admin_sources.plugin_state = [&app] { return app.director().PluginState(); };
  app.admin_sources.decisions = [&app](size_t n) { return app.director().Decisions(n); };
  services::AddAdminRoutes(app.admin_router, app.admin_sources);
  LLMD_ASSIGN_OR_RETURN(app.admin,
                        services::StartAdminServer(*app.runtime, flags.picker, app.admin_router,
                                                   app.logger, app.metrics));
  return OkStatus();
}

StatusOr<std::shared_ptr<grpc::ServerCredentials>> Credentials(const App& app, const Flags& flags) {
  if (!flags.tls.secure) return grpc::InsecureServerCredentials();
  LLMD_ASSIGN_OR_RETURN(auto source,
                        services::MakeCertificateSource(flags.tls, flags.host, app.logger));
  return MakeTlsCredentials(std::move(source));
}

Status StartGrpc(App& app, const Flags& flags) {
  // gRPC's locks are Abseil's, which look for lock cycles unless told not to.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  ProcessorOptions options;
  options.max_body_bytes = static_cast<size_t>(flags.picker.max_body_bytes);
  options.emit_endpoint_scores = flags.picker.emit_endpoint_scores;
  options.token_metrics = flags.token_metrics;
  options.on_excess = [&app, told = std::make_shared<std::atomic<bool>>(false)](const char* what) {
    if (told->exchange(true)) return;
    app.logger.Warn("ext_proc: messages after a body's end are passed over; told once",
                    {{"message", what},
                     {"reason", "the proxy repeated the last message of a body, or sent more"}});
  };
  app.ext_proc = std::make_unique<ExtProcService>(
      app.director(), options, static_cast<size_t>(flags.max_streams),
      static_cast<unsigned>(flags.threads), app.metrics);
  for (auto* health : {&app.health, &app.own_health}) {
    *health = std::make_unique<HealthService>(app.admin_sources.pool_ready, app.pools->names(),
                                              app.logger);
  }
  HealthService* const beside = flags.health_checking ? app.health.get() : nullptr;
  LLMD_ASSIGN_OR_RETURN(auto credentials, Credentials(app, flags));
  const auto streams = [&app](grpc::ServerBuilder& builder) { app.ext_proc->AddTo(builder); };
  LLMD_ASSIGN_OR_RETURN(app.grpc, Listen(flags, flags.grpc_port, beside, streams, "--grpc-port",
                                         std::move(credentials)));
  app.ext_proc->Start(beside);
  const auto checks = [&app](grpc::ServerBuilder& builder) { app.health_queues.AddTo(builder, 1); };
  LLMD_ASSIGN_OR_RETURN(app.grpc_health,
                        Listen(flags, flags.health_port, app.own_health.get(), checks,
                               "--grpc-health-port", grpc::InsecureServerCredentials()));
  app.health_queues.Start([&app](grpc::ServerCompletionQueue& queue) {
    app.own_health->Accept(queue, app.health_queues.calls());
  });
  app.serving = true;
  return OkStatus();
}

Status Start(App& app, const Flags& flags) {
  services::AddBuildInfo(app.metrics);
  app.log_metrics = services::AddLogMetrics(app.metrics, app.log);
  LLMD_ASSIGN_OR_RETURN(app.runtime, http::Runtime::Create(1));
  app.fetch = services::MakeScrapeFetch(services::MakeHttpFetch(*app.runtime));
  if (flags.picker.tracing) {
    LLMD_ASSIGN_OR_RETURN(app.tracer, services::MakeTracer(*app.runtime, app.metrics, app.logger,
                                                           {.service_name = "llm-d-epp",
                                                            .asked = flags.picker.tracing_given}));
  }
  LLMD_ASSIGN_OR_RETURN(app.pools, services::Pools::Create(flags.picker, app.fetch, app.logger,
                                                           app.metrics, app.tracer.get()));
  LLMD_RETURN_IF_ERROR(StartAdmin(app, flags));
  return StartGrpc(app, flags);
}

// Not ready at once; requests are served on, new ones too, until none is open or the time is up.
// Then those that still wait, or come, are told, and the rest is cut.
void Drain(App& app, std::chrono::nanoseconds patience) {
  app.serving = false;
  app.logger.Info("draining",
                  {{"timeoutSeconds", std::chrono::duration<double>(patience).count()}});
  const bool idle = app.ext_proc->gate().WaitIdle(std::chrono::steady_clock::now() + patience);
  app.ext_proc->gate().Close();
  app.director().Stop();
  if (app.tracer) app.tracer->Stop();
  const auto now = std::chrono::system_clock::now();
  app.grpc.server->Shutdown(idle ? now : now + kLastAnswers);
  app.ext_proc->Stop();
  app.grpc_health.server->Shutdown(now);
  app.health_queues.Stop();
  app.admin->Stop(Duration::zero());
  app.runtime->Stop();
}

}  // namespace

int RunEpp(int argc, const char* const* argv) {
  services::BlockSignals();
  services::KeepBodyMemory();
  Flags flags;
  FlagSet set = MakeFlags(flags);
  const FlagSet::Outcome outcome = set.Parse(argc, argv);
  if (outcome.exit) return outcome.code;
  flags.picker.tracing_given = outcome.Given("tracing");
  const auto policy = services::CheckTlsFlags(flags.tls);
  if (!policy.ok()) return Fail(policy.status()), 2;
  ApplyTlsPolicy(*policy);
  const auto verbosity = Verbosity(flags.picker);
  if (!verbosity.ok()) return Fail(verbosity.status()), 2;
  if (Status s = CheckPickerFlags(flags.picker); !s.ok()) return Fail(s), 2;

  auto app = std::make_unique<App>();
  app->logger = services::MakeLogger(app->log, *verbosity);
  for (const std::string& warning : outcome.warnings) app->logger.Warn(warning);
  FixSeed(flags.picker);
  if (Status s = Start(*app, flags); !s.ok()) return Fail(s);
  app->logger.Info("EPP starting (file discovery mode)", {{"grpcPort", app->grpc.port},
                                                          {"healthPort", app->grpc_health.port},
                                                          {"metricsPort", int{app->admin->port()}},
                                                          {"seed", flags.picker.seed}});
  services::WaitForSignal([&app] { (void)app->director().ReloadFile(); });
  Drain(*app, flags.picker.drain_timeout);
  return 0;
}

}  // namespace llmd::epp
