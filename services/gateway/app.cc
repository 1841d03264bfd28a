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
#include "common/tls.h"
#include "common/tracing.h"
#include "gateway/front.h"
#include "gateway/pages.h"
#include "gateway/tls_flags.h"

namespace llmd::gateway {
namespace {

using services::Fail;
using services::FlagSet;

struct Flags {
  services::PickerFlags picker;
  std::string host = "127.0.0.1", epp, epp_ca_file, epp_cert_path, half_close = "gone";
  uint16_t port = 8000;
  int64_t attempts = 3, loops = 1;
  bool no_epp = false, epp_secure = false, access_log = true;
  Timeouts timeouts;
  std::vector<std::string> path_timeouts;
  std::chrono::nanoseconds retry_timeout = TryLimits().retry_timeout, sse_heartbeat{};
  ExtProcOptions asking;  // but its address
  std::string epp_failure_mode = "close";
  TlsFlags tls;
};

FlagSet MakeFlags(Flags& flags) {
  FlagSet set(
      "llmd-gateway",
      "OpenAI-compatible gateway: routes each request to the model server the picker chooses.");
  flags.picker.metrics_port = 0;
  services::AddPickerFlags(set, flags.picker);
  set.String("host", &flags.host, "address to listen on");
  set.Port("port", &flags.port, "port to listen on; 0 = any");
  set.String("epp", &flags.epp,
             "HOST:PORT of an endpoint picker to ask over ext_proc, as Envoy does");
  set.Bool("epp-secure", &flags.epp_secure,
           "speak TLS to the picker; without --epp-ca-file any certificate is taken");
  set.String("epp-ca-file", &flags.epp_ca_file,
             "authority whose certificate the picker must show for its host (PEM)");
  set.String("epp-cert-path", &flags.epp_cert_path, "mTLS: directory with our tls.crt and tls.key");
  set.Duration("epp-timeout", &flags.asking.timeout,
               "a picker that owes an answer and gives no sign of life for so long is lost");
  set.Duration("epp-queue-timeout", &flags.asking.queue_timeout,
               "how long a live picker may keep a request before it says where it goes; longer "
               "than the TTLs of its queues");
  set.String("epp-failure-mode", &flags.epp_failure_mode,
             "while the picker is lost: `close` refuses with 503, `open` sends requests to the "
             "known endpoints in turn");
  set.List("epp-endpoint", &flags.asking.endpoints,
           "IP:PORT known before the picker has named any; may be repeated");
  AddTlsFlags(set, flags.tls);
  set.Bool("no-epp", &flags.no_epp, "schedule in process (the default without --epp)");
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
  std::vector<sched::ServedModel> Models() const {
    return pools ? pools->director().ServedModels() : std::vector<sched::ServedModel>();
  }
  StatusOr<std::string> Explain(std::string_view id) const {
    return pools ? pools->director().Explain(id)
                 : NotFound("decisions are kept by the endpoint picker (--epp)");
  }
};

#ifdef LLMD_WITH_EPP
StatusOr<PickerAddress> AddressOf(const Flags& flags) {
  PickerAddress out;
  out.target = flags.epp;
  out.secure = flags.epp_secure;
  if (!flags.epp_ca_file.empty()) {
    auto authority = services::LoadAuthority(flags.epp_ca_file);
    if (!authority.ok()) return authority.status().WithContext("--epp-ca-file");
    out.authority = std::move(*authority);
  }
  if (flags.epp_cert_path.empty()) return out;
  auto ours = services::LoadCertificate({flags.epp_cert_path, ""});
  if (!ours.ok()) return ours.status().WithContext("--epp-cert-path");
  out.chain = std::move(ours->chain);
  out.key = std::move(ours->key);
  return out;
}
#endif

Status CheckAsking(const Flags& flags) {
  if (flags.no_epp) return InvalidArgument("--epp and --no-epp exclude each other");
  if (flags.epp_failure_mode != "close" && flags.epp_failure_mode != "open")
    return InvalidArgument("--epp-failure-mode '" + flags.epp_failure_mode +
                           "': expected close or open");
  if (flags.asking.timeout < std::chrono::milliseconds(20))
    return InvalidArgument("--epp-timeout: expected at least 20ms");
  if (flags.asking.queue_timeout < flags.asking.timeout)
    return InvalidArgument("--epp-queue-timeout: expected no less than --epp-timeout");
  return http::ParseHostPort(flags.epp).status().WithContext("--epp");
}

Status MakeDecider(App& app, const Flags& flags) {
  if (flags.half_close != "gone" && flags.half_close != "allow")
    return InvalidArgument("--half-close '" + flags.half_close + "': expected gone or allow");
  if (!flags.epp_secure && !(flags.epp_ca_file.empty() && flags.epp_cert_path.empty()))
    return InvalidArgument("--epp-ca-file and --epp-cert-path need --epp-secure");
  if (flags.epp_secure && flags.epp.empty()) return InvalidArgument("--epp-secure needs --epp");
  if (flags.picker.tracing) {
    LLMD_ASSIGN_OR_RETURN(app.tracer, services::MakeTracer(*app.runtime, app.metrics, app.logger,
                                                           {.service_name = "llmd-gateway",
                                                            .asked = flags.picker.tracing_given}));
  }
  if (!flags.epp.empty()) return CheckAsking(flags);
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
  ExtProcOptions asking = flags.asking;
  LLMD_ASSIGN_OR_RETURN(asking.address, AddressOf(flags));
  asking.open = flags.epp_failure_mode == "open";
  LLMD_ASSIGN_OR_RETURN(
      std::unique_ptr<PickerFront> front,
      MakePickerFront(options, std::move(asking), std::move(pages), app.logger, app.metrics));
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
  PageSources sources;
  sources.ready = [&app] { return app.ready(); };
  sources.metrics = [&app] { return app.Metrics(); };
  sources.models = [&app] { return app.Models(); };
  std::vector<LocalPage> pages = ClientPages(sources);
  if (app.pools) {
    LLMD_ASSIGN_OR_RETURN(
        app.front, MakeRelayFront(options, app.pools->director(), std::move(pages), app.logger,
                                  app.metrics, app.fetch.get()));
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
  services::AddAdminRoutes(app.admin_router, app.admin_sources);
  LLMD_ASSIGN_OR_RETURN(app.admin,
                        services::StartAdminServer(*app.runtime, flags.picker, app.admin_router,
                                                   app.logger, app.metrics));
  return OkStatus();
}

Status Start(App& app, const Flags& flags) {
  services::AddBuildInfo(app.metrics);
  app.log_metrics = services::AddLogMetrics(app.metrics, app.log);
  // The relay has the loops; here are only the admin port and the pages of engines.
  LLMD_ASSIGN_OR_RETURN(app.runtime, http::Runtime::Create(1));
  LLMD_RETURN_IF_ERROR(MakeDecider(app, flags));
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
  auto app = std::make_unique<App>();
  app->logger = services::MakeLogger(app->log, *verbosity);
  for (const std::string& warning : outcome.warnings) app->logger.Warn(warning);
  FixSeed(flags.picker);
  services::RaiseDescriptorLimit(app->logger);
  if (Status s = Start(*app, flags); !s.ok()) return Fail(s);
  app->logger.Info("listening", {{"host", flags.host},
                                 {"port", int{app->front->port()}},
                                 {"adminPort", int{app->admin->port()}},
                                 {"seed", flags.picker.seed}});
  services::WaitForSignal([&app] {
    if (app->pools) (void)app->pools->director().ReloadFile();
  });
  Drain(*app, flags.picker.drain_timeout);
  return 0;
}

}  // namespace llmd::gateway
