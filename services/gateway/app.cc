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
#include "gateway/forwarder.h"
#include "gateway/picker.h"
#ifdef LLMD_WITH_EPP
#include "gateway/ext_proc_policy.h"
#include "llmd/http/relay/relay.h"
#endif
#include "llmd/version.h"

namespace llmd::gateway {
namespace {

using services::Fail;
using services::FlagSet;

struct Flags {
  services::PickerFlags picker;
  std::string host = "127.0.0.1", epp, epp_ca_file, epp_cert_path;
  uint16_t port = 8000;
  int64_t attempts = 3, loops = 1;
  bool no_epp = false, epp_secure = false;
  std::chrono::nanoseconds first_byte_timeout = std::chrono::minutes(10);
  std::chrono::nanoseconds epp_timeout = std::chrono::milliseconds(200),
                           epp_queue_timeout = std::chrono::seconds(65);
  std::string epp_failure_mode = "close";
  std::vector<std::string> epp_endpoints;
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
  set.Duration("epp-timeout", &flags.epp_timeout,
               "a picker that owes an answer and gives no sign of life for so long is lost");
  set.Duration("epp-queue-timeout", &flags.epp_queue_timeout,
               "how long a live picker may keep a request in its queues");
  set.String("epp-failure-mode", &flags.epp_failure_mode,
             "without the picker requests are refused with 503 (close) or go to the endpoints that "
             "are known in turn (open)");
  set.List("epp-endpoint", &flags.epp_endpoints,
           "HOST:PORT known from the start, for --epp-failure-mode=open; may be repeated");
  set.String("epp-cert-path", &flags.epp_cert_path, "mTLS: directory with our tls.crt and tls.key");
  for (const char* name : {"cert-path", "tls-min-version", "tls-cipher-suites"})
    set.NotYet(name, true, "the gateway serves HTTP in clear text");
  set.NotYet("enable-cert-reload", false, "the gateway serves HTTP in clear text");
  set.Bool("no-epp", &flags.no_epp, "schedule in process (the default without --epp)");
  set.Int("max-attempts", &flags.attempts, 1, 16,
          "endpoints tried before the first byte of an answer");
  set.Duration("first-byte-timeout", &flags.first_byte_timeout,
               "how long an engine may take to begin its answer");
  set.Int("loop-threads", &flags.loops, 1, 64, "I/O threads");
  return set;
}

// Members die in reverse order: servers before what they call.
struct App {
  std::shared_ptr<FdLog> log = services::StdoutLog();
  Logger logger;
  MetricsRegistry metrics;
  std::shared_ptr<const void> log_metrics;
  std::unique_ptr<http::Runtime> runtime;
  std::shared_ptr<sched::Fetch> fetch;
  std::unique_ptr<Tracer> tracer;          // null when nothing is traced
  std::unique_ptr<services::Pools> pools;  // null with --epp
  std::unique_ptr<Picker> picker;
  std::unique_ptr<http::Client> client;
  std::unique_ptr<Forwarder> forwarder;
  std::atomic<bool> draining{false};
  services::AdminSources admin_sources;
  http::Router router, admin_router;
  std::unique_ptr<http::Server> admin, server;
#ifdef LLMD_WITH_EPP
  std::unique_ptr<ExtProcFront> front;
  std::unique_ptr<relay::Relay> relay;
#endif
  bool ready() const {
#ifdef LLMD_WITH_EPP
    if (front) return !draining && front->ready();
#endif
    return !draining && picker->ready();
  }
  uint16_t port() const {
#ifdef LLMD_WITH_EPP
    if (relay) return relay->port();
#endif
    return server->port();
  }
};

// Named functors: a capturing lambda must not be a coroutine.
struct Forward {
  Forwarder* forwarder;
  http::Task<void> operator()(http::Exchange& exchange) const {
    co_await forwarder->Handle(exchange);
  }
};
// The models of all endpoints where the picker knows them, else one endpoint's own answer.
struct Models {
  const App* app;
  http::Task<void> operator()(http::Exchange& exchange) const {
    const std::vector<sched::ServedModel> models =
        app->pools ? app->pools->director().ServedModels() : std::vector<sched::ServedModel>();
    if (models.empty()) {
      co_await app->forwarder->Handle(exchange);
      co_return;
    }
    json::Array data;
    for (const sched::ServedModel& model : models) {
      json::Object entry{
          {"id", model.id}, {"object", "model"}, {"created", 0}, {"owned_by", "llmd"}};
      if (!model.parent.empty()) entry.emplace_back("parent", model.parent);
      data.emplace_back(std::move(entry));
    }
    const json::Value body(json::Object{{"object", "list"}, {"data", std::move(data)}});
    http::Response response = http::JsonResponse(200, body.Dump());
    (void)co_await exchange.Send(std::move(response));
  }
};
struct Ready {
  const App* app;
  http::Task<void> operator()(http::Exchange& exchange) const {
    http::Response response;
    const bool ready = app->ready();
    response.head.status = ready ? 200 : 503;
    (void)co_await exchange.Send(std::move(response));
  }
};
struct Health {
  http::Task<void> operator()(http::Exchange& exchange) const {
    http::Response response;
    (void)co_await exchange.Send(std::move(response));
  }
};
// What stands at /: who this is and where to go on.
struct Welcome {
  http::Task<void> operator()(http::Exchange& exchange) const {
    const json::Value links = json::Object{{"models", "/v1/models"},
                                           {"chat", "/v1/chat/completions"},
                                           {"completions", "/v1/completions"},
                                           {"health", "/health"},
                                           {"ready", "/ready"},
                                           {"metrics", "/metrics"}};
    const json::Value body =
        json::Object{{"name", "llmd-gateway"}, {"version", LLMD_VERSION_STRING}, {"links", links}};
    http::Response response = http::JsonResponse(200, body.DumpPretty() + "\n");
    (void)co_await exchange.Send(std::move(response));
  }
};
struct Refuse {
  int status;
  const char* message;
  http::Task<void> operator()(http::Exchange& exchange) const {
    json::Value error;
    error.Set("message", std::string(message) + ": " + exchange.request().method + " " +
                             std::string(exchange.request().path()));
    error.Set("type", status == 404 ? "not_found_error" : "invalid_request_error");
    error.Set("param", nullptr);
    error.Set("code", status);
    json::Value body;
    body.Set("error", std::move(error));
    http::Response response = http::JsonResponse(status, body.Dump());
    (void)co_await exchange.Send(std::move(response));
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

Status AskPicker(App& app, const Flags& flags) {
  if (flags.no_epp) return InvalidArgument("--epp and --no-epp exclude each other");
  LLMD_RETURN_IF_ERROR(http::ParseHostPort(flags.epp).status().WithContext("--epp"));
#ifdef LLMD_WITH_EPP
  LLMD_ASSIGN_OR_RETURN(const PickerAddress address, AddressOf(flags));
  ExtProcOptions options;
  options.address = address;
  options.timeout = flags.epp_timeout;
  options.queue_timeout = flags.epp_queue_timeout;
  options.open = flags.epp_failure_mode == "open";
  options.endpoints = flags.epp_endpoints;
  options.max_attempts = static_cast<int>(flags.attempts);
  options.first_byte_timeout = flags.first_byte_timeout;
  LLMD_ASSIGN_OR_RETURN(app.front,
                        ExtProcFront::Create(std::move(options), app.logger, app.metrics));
  return OkStatus();
#else
  return Unimplemented("--epp: this build has no gRPC");
#endif
}

Status MakePicker(App& app, const Flags& flags) {
  if (!flags.epp_secure && !(flags.epp_ca_file.empty() && flags.epp_cert_path.empty()))
    return InvalidArgument("--epp-ca-file and --epp-cert-path need --epp-secure");
  if (flags.epp_secure && flags.epp.empty()) return InvalidArgument("--epp-secure needs --epp");
  if (!flags.epp.empty()) return AskPicker(app, flags);
  if (flags.picker.tracing) {
    LLMD_ASSIGN_OR_RETURN(
        app.tracer, services::MakeTracer(*app.runtime, app.metrics, app.logger, "llmd-gateway",
                                         flags.picker.tracing_given));
  }
  app.fetch = services::MakeScrapeFetch(services::MakeHttpFetch(*app.runtime));
  LLMD_ASSIGN_OR_RETURN(app.pools, services::Pools::Create(flags.picker, app.fetch, app.logger,
                                                           app.metrics, app.tracer.get()));
  app.picker = MakeDirectorPicker(app.pools->director());
  return OkStatus();
}

void AddRoutes(App& app) {
  const Forward forward{app.forwarder.get()};
  for (const char* path : {"/v1/*", "/v2/*", "/inference/*", "/tokenize", "/detokenize", "/rerank",
                           "/score", "/pooling", "/classify"}) {
    for (const char* method : {"GET", "POST", "DELETE", "OPTIONS"})
      app.router.Add(method, path, forward);
  }
  app.router.Add("GET", "/v1/models", Models{&app});
  app.router.Add("GET", "/", Welcome{});
  app.router.Add("GET", "/health", Health{});
  app.router.Add("GET", "/ready", Ready{&app});
  services::AddAdminRoutes(app.router, app.admin_sources);
  app.router.NotFound(Refuse{404, "no such route"});
  app.router.MethodNotAllowed(Refuse{405, "method not allowed"});
}

Status StartServers(App& app, const Flags& flags) {
  app.admin_sources.metrics = [&app] {
    return app.pools ? app.pools->Expose() : app.metrics.Expose();
  };
  app.admin_sources.ready = [&app] { return app.ready(); };
  AddRoutes(app);
  http::ServerOptions options;
  options.host = flags.host;
  options.port = flags.port;
  options.max_body_bytes = static_cast<size_t>(flags.picker.max_body_bytes);
#ifdef LLMD_WITH_EPP
  if (app.front) {
    relay::RelayOptions relay_options;
    relay_options.server = options;
    relay_options.loops = static_cast<int>(flags.loops);
    LLMD_ASSIGN_OR_RETURN(
        app.relay, relay::Relay::Create(
                       relay_options,
                       [&app](relay::Loop& loop) { return app.front->MakePolicy(loop); }, app.logger));
  }
#endif
  if (app.picker) {
    LLMD_ASSIGN_OR_RETURN(app.server, http::Server::Create(*app.runtime, options,
                                                           app.router.AsHandler(), app.logger));
  }
  // Decisions name engines and prompts' scores: they stay on the admin port.
  app.admin_sources.explain = [&app](std::string_view id) { return app.picker ? app.picker->Explain(id) : NotFound("decisions are kept by the endpoint picker"); };
  if (app.pools) {
    app.admin_sources.plugin_state = [&app] { return app.pools->director().PluginState(); };
    app.admin_sources.decisions = [&app](size_t n) { return app.pools->director().Decisions(n); };
    app.admin_sources.pool_ready = [&app](std::string_view pool) { return app.pools->ready(pool); };
  }
  services::AddAdminRoutes(app.admin_router, app.admin_sources);
  LLMD_ASSIGN_OR_RETURN(app.admin, services::StartAdminServer(*app.runtime, flags.picker,
                                                              app.admin_router, app.logger));
  return OkStatus();
}

Status Start(App& app, const Flags& flags) {
  services::AddBuildInfo(app.metrics);
  app.log_metrics = services::AddLogMetrics(app.metrics, app.log);
  LLMD_ASSIGN_OR_RETURN(app.runtime, http::Runtime::Create(static_cast<int>(flags.loops)));
  LLMD_RETURN_IF_ERROR(MakePicker(app, flags));
  if (!app.picker) return StartServers(app, flags);
  app.client = std::make_unique<http::Client>(*app.runtime, http::ClientOptions());
  ForwarderOptions options;
  options.max_attempts = static_cast<int>(flags.attempts);
  options.first_byte_timeout = flags.first_byte_timeout;
  app.forwarder = std::make_unique<Forwarder>(*app.picker, *app.client, options, app.logger,
                                              app.metrics, SystemClock());
  return StartServers(app, flags);
}

void Drain(App& app, std::chrono::nanoseconds patience) {
  app.draining = true;
  app.logger.Info("draining",
                  {{"timeoutSeconds", std::chrono::duration<double>(patience).count()}});
#ifdef LLMD_WITH_EPP
  if (app.relay) {
    app.relay->Stop(patience);
    app.front->Stop();
  }
#endif
  if (app.server) app.server->Stop(patience);
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
                                 {"port", int{app->port()}},
                                 {"adminPort", int{app->admin->port()}},
                                 {"seed", flags.picker.seed}});
  services::WaitForSignal([&app] {
    if (app->pools) (void)app->pools->director().ReloadFile();
  });
  Drain(*app, flags.picker.drain_timeout);
  return 0;
}

}  // namespace llmd::gateway
