#include "gateway/app.h"

#include <algorithm>
#include <memory>

#include "common/admin.h"
#include "common/admin_server.h"
#include "common/flags.h"
#include "common/http_fetch.h"
#include "common/picker_flags.h"
#include "common/pools.h"
#include "common/process.h"
#include "common/scrape_fetch.h"
#include "common/tracing.h"
#include "gateway/doors/door_flags.h"
#include "gateway/epp_flags.h"
#include "gateway/front.h"
#include "gateway/open_doors.h"
#include "gateway/pages.h"
#include "gateway/tls_flags.h"

namespace llmd::gateway {
namespace {

using services::Fail;
using services::FlagSet;

struct Flags {
  services::PickerFlags picker;
  std::string host = "127.0.0.1", half_close = "gone";
  uint16_t port = 8000;
  int64_t attempts = 3, loops = 1;
  bool access_log = true;
  Timeouts timeouts;
  std::vector<std::string> path_timeouts;
  std::chrono::nanoseconds retry_timeout = TryLimits().retry_timeout, sse_heartbeat{};
  EppFlags epp;
  TlsFlags tls;
  doors::DoorFlags doors;
  ClientLimits limits;
};

FlagSet MakeFlags(Flags& flags) {
  FlagSet set(
      "llmd-gateway",
      "OpenAI-compatible gateway: routes each request to the model server the picker chooses.");
  flags.picker.metrics_port = 0;
  services::AddPickerFlags(set, flags.picker);
  set.String("host", &flags.host, "address to listen on");
  set.Port("port", &flags.port, "port to listen on; 0 = any");
  AddEppFlags(set, flags.epp);
  AddTlsFlags(set, flags.tls);
  set.Int(
      "max-attempts", &flags.attempts, 1, 16,
      "engines that may read one request before its answer begins; those that cannot be reached "
      "do not count");
  set.Duration(
      "retry-timeout", &flags.retry_timeout,
      "how long a request that every endpoint has failed is tried again, with back-off; 0 = "
      "not at all");
  set.Duration("request-timeout", &flags.timeouts.whole,
               "how long a request may take, all attempts and the whole answer; 0 = as long as it "
               "does");
  set.Duration("first-byte-timeout", &flags.timeouts.first_byte,
               "how long an engine may take to begin its answer");
  set.Duration("gap-timeout", &flags.timeouts.gap,
               "how long an engine may be silent within its answer");
  set.List(
      "path-timeout", &flags.path_timeouts,
      "PATH=first-byte:TIME,gap:TIME,request:TIME for one path, or with a * at its end for all "
      "that begin so; may be repeated, the first that fits counts");
  set.Duration(
      "sse-heartbeat", &flags.sse_heartbeat,
      "a comment line in an event stream that has brought nothing for so long, between two "
      "events; 0 = none");
  set.String("half-close", &flags.half_close,
             "a client that closes its sending side: `gone` breaks off its request, `allow` serves "
             "it to the end");
  set.Bool("access-log", &flags.access_log, "log a line for each request");
  set.Int("loop-threads", &flags.loops, 1, 64, "I/O threads");
  doors::AddDoorFlags(set, flags.doors);
  AddClientLimitFlags(set, flags.limits);
  return set;
}

// Members die in reverse order: the door before what it calls.
struct App {
  std::shared_ptr<FdLog> log = services::StdoutLog();
  Logger logger;
  MetricsRegistry metrics;
  std::shared_ptr<const void> log_metrics;
  std::unique_ptr<http::Runtime> runtime;
  std::shared_ptr<PageWatch> fetch;
  std::unique_ptr<Tracer> tracer;          // null when nothing is traced
  std::unique_ptr<services::Pools> pools;  // null with --epp
  std::unique_ptr<doors::Doors> doors;
  std::atomic<bool> draining{false};
  services::AdminSources admin_sources;
  http::Router admin_router;
  std::unique_ptr<http::Server> admin;
  std::unique_ptr<Front> front;
  std::shared_ptr<const void> handshake_metrics;
  std::atomic<const PickerFront*> picker{nullptr};  // the front with --epp, once it is open

  bool ready() const {
    const PickerFront* const asked = picker;
    return !draining && (pools ? pools->ready("") : asked != nullptr && asked->picker_ready());
  }
  std::string Metrics() const { return pools ? pools->Expose() : metrics.Expose(); }
  StatusOr<std::string> Explain(std::string_view id) const {
    return pools ? pools->director().Explain(id)
                 : NotFound("decisions are kept by the endpoint picker (--epp)");
  }
};

Status MakeDecider(App& app, const Flags& flags) {
  if (flags.half_close != "gone" && flags.half_close != "allow")
    return InvalidArgument("--half-close '" + flags.half_close + "': expected gone or allow");
  LLMD_RETURN_IF_ERROR(CheckEppFlags(flags.epp));
  if (flags.picker.tracing) {
    LLMD_ASSIGN_OR_RETURN(app.tracer, services::MakeTracer(*app.runtime, app.metrics, app.logger,
                                                           {.service_name = "llmd-gateway",
                                                            .asked = flags.picker.tracing_given}));
  }
  if (!flags.epp.target.empty()) return OkStatus();
  app.fetch =
      std::make_shared<PageWatch>(services::MakeScrapeFetch(services::MakeHttpFetch(*app.runtime)),
                                  flags.picker.metrics_staleness_threshold, SystemClock());
  LLMD_ASSIGN_OR_RETURN(app.pools, services::Pools::Create(flags.picker, app.fetch, app.logger,
                                                           app.metrics, app.tracer.get()));
  return OkStatus();
}

Status OpenPickerFront(App& app, const Flags& flags, const FrontOptions& options,
                       std::vector<LocalPage> pages) {
#ifdef LLMD_WITH_EPP
  LLMD_ASSIGN_OR_RETURN(ExtProcOptions asking, ToExtProcOptions(flags.epp));
  LLMD_ASSIGN_OR_RETURN(std::unique_ptr<PickerFront> front,
                        MakePickerFront(options, std::move(asking), *app.doors, std::move(pages),
                                        app.logger, app.metrics));
  app.picker = front.get();
  app.front = std::move(front);
  return OkStatus();
#else
  return Unimplemented("--epp: this build has no gRPC");
#endif
}

Status OpenFront(App& app, const Flags& flags) {
  FrontOptions options;
  options.host = flags.host;
  options.port = flags.port;
  options.loops = static_cast<int>(flags.loops);
  options.max_body_bytes = static_cast<size_t>(flags.picker.max_body_bytes);
  options.tries.max_attempts = static_cast<int>(flags.attempts);
  options.tries.retry_timeout = flags.retry_timeout;
  if (std::min(flags.retry_timeout, flags.sse_heartbeat) < Duration::zero())
    return InvalidArgument("--retry-timeout and --sse-heartbeat: expected a time of zero or above");
  LLMD_ASSIGN_OR_RETURN(options.timeouts,
                        TimeoutTable::Create(flags.timeouts, flags.path_timeouts));
  options.sse_heartbeat = flags.sse_heartbeat;
  options.seed = static_cast<uint64_t>(flags.picker.seed);
  options.allow_half_close = flags.half_close == "allow";
  if (flags.access_log && app.logger.Enabled(LogLevel::kInfo)) options.access_log = app.log;
  options.tracer = app.tracer.get();
  LLMD_RETURN_IF_ERROR(UseTls(flags.tls, app.logger, app.metrics, options));
  options.limits = flags.limits;
  PageSources sources;
  sources.ready = [&app] { return app.ready(); };
  sources.metrics = [&app] { return app.Metrics(); };
  std::vector<LocalPage> pages = ClientPages(sources);
  if (app.pools) {
    options.engines = EnginesOf(*app.pools);
    LLMD_ASSIGN_OR_RETURN(
        app.front, MakeRelayFront(options, app.pools->director(), *app.doors, std::move(pages),
                                  app.logger, app.metrics, app.fetch.get()));
    return OkStatus();
  }
  return OpenPickerFront(app, flags, options, std::move(pages));
}

// Decisions name engines and prompts' scores: they stay on the admin port.
Status OpenAdmin(App& app, const Flags& flags) {
  app.admin_sources.metrics = [&app] { return app.Metrics(); };
  app.admin_sources.ready = [&app] { return app.ready(); };
  app.admin_sources.explain = [&app](std::string_view id) { return app.Explain(id); };
  if (app.pools) {
    app.admin_sources.plugin_state = [&app] { return app.pools->director().PluginState(); };
    app.admin_sources.decisions = [&app](size_t n) { return app.pools->director().Decisions(n); };
    app.admin_sources.pool_ready = [&app](std::string_view pool) { return app.pools->ready(pool); };
  }
  app.admin_sources.models = [&app] { return app.doors->catalogue().ToJson(SystemClock().Now()); };
  services::AddAdminRoutes(app.admin_router, app.admin_sources);
  LLMD_ASSIGN_OR_RETURN(app.admin,
                        services::StartAdminServer(*app.runtime, flags.picker, app.admin_router,
                                                   app.logger, app.metrics));
  return OkStatus();
}

// The doors' bounds, within what descriptors allow.
void BoundClients(Flags& flags, uint64_t descriptors, const Logger& logger) {
  flags.limits.max_body_bytes_in_flight = flags.doors.body_bytes;
  flags.limits.max_connections = ConnectionsWithin(flags.doors.connections, descriptors);
  logger.Info("bound of clients' connections",
              {{"connections", flags.limits.max_connections}, {"wanted", flags.doors.connections}});
}

Status Start(App& app, const Flags& flags) {
  services::AddBuildInfo(app.metrics);
  app.log_metrics = services::AddLogMetrics(app.metrics, app.log);
  // The relay has the loops; here are only the admin port and the pages of engines.
  LLMD_ASSIGN_OR_RETURN(app.runtime, http::Runtime::Create(1));
  LLMD_RETURN_IF_ERROR(MakeDecider(app, flags));
  LLMD_ASSIGN_OR_RETURN(app.doors, OpenDoors(flags.doors, flags.picker, !flags.epp.target.empty(),
                                             app.logger, app.metrics));
  LLMD_RETURN_IF_ERROR(OpenFront(app, flags));
  app.handshake_metrics =
      services::AddHandshakeMetrics(app.metrics, [&app] { return app.front->Stats(); });
  return OpenAdmin(app, flags);
}

void Drain(App& app, std::chrono::nanoseconds patience) {
  app.draining = true;
  app.logger.Info("draining",
                  {{"timeoutSeconds", std::chrono::duration<double>(patience).count()}});
  app.front->Stop(patience);
  app.admin->Stop(Duration::zero());
  if (app.pools) app.pools->director().Stop();
  if (app.tracer) app.tracer->Stop();
  app.runtime->Stop();
}

}  // namespace

int RunGateway(int argc, const char* const* argv) {
  services::BlockSignals();
  Flags flags;
  FlagSet set = MakeFlags(flags);
  const FlagSet::Outcome outcome = set.Parse(argc, argv);
  if (outcome.exit) return outcome.code;
  flags.picker.tracing_given = outcome.Given("tracing");
  const auto verbosity = Verbosity(flags.picker);
  if (!verbosity.ok()) return Fail(verbosity.status()), 2;
  if (Status s = CheckPickerFlags(flags.picker); !s.ok()) return Fail(s), 2;
  if (Status s = CheckClientLimits(flags.limits); !s.ok()) return Fail(s), 2;
  auto app = std::make_unique<App>();
  app->logger = services::MakeLogger(app->log, *verbosity);
  for (const std::string& warning : outcome.warnings) app->logger.Warn(warning);
  FixSeed(flags.picker);
  BoundClients(flags, services::RaiseDescriptorLimit(app->logger), app->logger);
  if (Status s = Start(*app, flags); !s.ok()) return Fail(s);
  app->logger.Info("listening", {{"host", flags.host},
                                 {"port", int{app->front->port()}},
                                 {"adminPort", int{app->admin->port()}},
                                 {"seed", flags.picker.seed}});
  services::WaitForSignal([&app] {
    if (app->pools) (void)app->pools->director().ReloadFile();
    (void)app->doors->Reload();
  });
  Drain(*app, flags.picker.drain_timeout);
  return 0;
}

}  // namespace llmd::gateway
