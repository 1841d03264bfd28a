#include "engine/app.h"

#include <fstream>
#include <sstream>
#include <thread>

#include "common/process.h"
#include "common/tracing.h"
#include "engine/server.h"
#include "engine/settings.h"
#include "engine/stats_log.h"
#include "llmd/engine/weights/chat_templates.h"
#include "llmd/shutdown.h"

namespace llmd::services {
namespace {

namespace serving = engine::serving;

// Everything that lives as long as the process, in the order of construction; stopped by Stop, not
// by destructors.
struct App {
  EngineSettings settings;
  std::shared_ptr<FdLog> log = StdoutLog();
  Logger logger;
  MetricsRegistry registry;
  std::shared_ptr<const void> log_metrics;
  std::unique_ptr<text::Tokenizer> tokenizer;
  text::ChatTemplates chat_templates;
  std::unique_ptr<engine::Engine> engine;
  std::unique_ptr<serving::ServingMetrics> metrics;
  std::unique_ptr<HttpMetrics> http_metrics;
  std::unique_ptr<http::Runtime> runtime;
  std::unique_ptr<Tracer> tracer;  // null when nothing is traced
  std::unique_ptr<serving::ServingContext> context;
  std::unique_ptr<WorkerPool> workers;
  std::unique_ptr<EngineServer> routes;
  std::unique_ptr<http::Server> server;
};

// A template as given on the command line: text when it looks like one, else a path.
StatusOr<std::string> GivenTemplate(const std::string& given) {
  if (given.find_first_of("{\n") != std::string::npos) return given;
  std::ifstream in(given);
  if (!in) return NotFound("--chat-template: cannot read '" + given + "'");
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

// A bad template of the file's does not keep the engine from completing text; one that was given is
// the operator's to mend.
Status LoadTemplates(App& app, const engine::ModelFile& file) {
  if (!app.settings.chat_template.empty()) {
    LLMD_ASSIGN_OR_RETURN(const std::string source, GivenTemplate(app.settings.chat_template));
    app.chat_templates.Add("", source);
    return app.chat_templates.fault();
  }
  app.chat_templates = engine::ReadChatTemplates(file);
  if (const Status fault = app.chat_templates.fault(); !fault.ok())
    app.logger.Warn("chat requests are refused", {{"reason", fault.message()}});
  return OkStatus();
}

Status LoadText(App& app, const engine::ModelFile& file) {
  LLMD_ASSIGN_OR_RETURN(text::TokenizerSpec spec, file.tokenizer());
  LLMD_ASSIGN_OR_RETURN(app.tokenizer, text::MakeTokenizer(std::move(spec)));
  return LoadTemplates(app, file);
}

std::string_view CacheDType(const engine::Model& model, int block_size) {
  return model.kv_geometry(block_size).element_bytes == 2 ? "bfloat16" : "float32";
}

Status LoadEngine(App& app, const engine::ModelFile& file) {
  EngineSettings& s = app.settings;
  LLMD_ASSIGN_OR_RETURN(std::unique_ptr<engine::Model> model, engine::LoadModel(file, s.weights));
  app.logger.Info(
      "model loaded",
      {{"model", s.model},
       {"backend", model->Describe()},
       {"fingerprint", model->config().fingerprint},
       {"fingerprintSeconds", std::chrono::duration<double>(file.fingerprint_time()).count()}});
  const int longest = model->config().max_position;
  if (s.engine.max_model_len > longest) {
    return InvalidArgument("--max-model-len " + std::to_string(s.engine.max_model_len) +
                           " is more than the model's " + std::to_string(longest));
  }
  const std::string dtype(CacheDType(*model, s.engine.block_size));
  s.serving.vocab_size = model->config().vocab;
  LLMD_ASSIGN_OR_RETURN(
      app.engine, engine::Engine::Create(std::move(model), s.engine, app.logger.Named("engine"),
                                         app.registry, SystemClock()));
  s.serving.max_model_len = app.engine->options().max_model_len;
  if (s.serving.max_model_len < longest) {
    app.logger.Info("max_model_len follows the KV cache",
                    {{"maxModelLen", s.serving.max_model_len}, {"model", longest}});
  }
  app.metrics = std::make_unique<serving::ServingMetrics>(
      app.registry, *app.engine, s.serving.model_names.front(), 0, s.serving.max_model_len, dtype);
  return OkStatus();
}

Status StartTracing(App& app) {
  const EngineSettings& s = app.settings;
  LLMD_ASSIGN_OR_RETURN(app.runtime, http::Runtime::Create(static_cast<int>(s.loop_threads)));
  if (!s.tracing) return OkStatus();
  LLMD_ASSIGN_OR_RETURN(app.tracer, MakeTracer(*app.runtime, app.registry, app.logger,
                                               {.service_name = "llmd-engine",
                                                .asked = s.tracing_given,
                                                .otlp_endpoint = s.otlp_traces_endpoint}));
  return OkStatus();
}

Status Load(App& app) {
  LLMD_ASSIGN_OR_RETURN(const std::unique_ptr<engine::ModelFile> file,
                        engine::ModelFile::Open(app.settings.model));
  LLMD_RETURN_IF_ERROR(LoadText(app, *file));
  LLMD_RETURN_IF_ERROR(LoadEngine(app, *file));
  EngineSettings& s = app.settings;
  s.serving.created = SystemClock().UnixNanos() / 1'000'000'000;
  s.serving.system_fingerprint = "vllm-" LLMD_VERSION "-" + file->fingerprint().substr(0, 8);
  app.context = std::make_unique<serving::ServingContext>(
      serving::ServingContext{*app.engine, *app.tokenizer, app.chat_templates, *app.metrics,
                              SystemClock(), app.logger, s.serving, app.tracer.get()});
  return OkStatus();
}

Status Listen(App& app) {
  const EngineSettings& s = app.settings;
  WorkerPool::Options pool{"tokenize", static_cast<size_t>(s.worker_threads), 4096};
  LLMD_ASSIGN_OR_RETURN(app.workers, WorkerPool::Create(std::move(pool)));
  app.http_metrics = std::make_unique<HttpMetrics>(app.registry);
  app.routes = std::make_unique<EngineServer>(s, *app.context, *app.metrics, *app.http_metrics,
                                              *app.workers, app.logger);
  http::ServerOptions options;
  options.host = s.host;
  options.port = s.port;
  LLMD_ASSIGN_OR_RETURN(
      app.server, http::Server::Create(*app.runtime, options, app.routes->AsHandler(), app.logger,
                                       app.routes->AsRefusalHook()));
  app.logger.Info("listening", {{"host", s.host},
                                {"port", static_cast<int64_t>(app.server->port())},
                                {"model", s.serving.model_names.front()}});
  return OkStatus();
}

void LogStatsUntil(const Shutdown& shutdown, const App& app) {
  constexpr auto kPeriod = std::chrono::seconds(10);
  StatsLog log;
  TimePoint last = SystemClock().Now();
  while (!shutdown.WaitFor(kPeriod)) {
    const TimePoint now = SystemClock().Now();
    app.logger.Info(log.Line(app.engine->Stats(), now - last));
    last = now;
  }
}

// The engine ends before the loops: its thread must have stopped calling into handlers when they
// go.
void Stop(App& app) {
  app.routes->BeginDrain();
  app.server->Stop(app.settings.drain_timeout);
  app.engine->Stop();
  app.workers->Stop();
  if (app.tracer) app.tracer->Stop();
  app.runtime->Stop();
}

void Serve(App& app) {
  Shutdown shutdown;
  std::thread stats;
  if (app.settings.log_stats) stats = std::thread([&] { LogStatsUntil(shutdown, app); });
  const int signal = WaitForSignal();
  app.logger.Info("draining", {{"signal", static_cast<int64_t>(signal)}});
  shutdown.Begin(app.settings.drain_timeout);
  Stop(app);
  if (stats.joinable()) stats.join();
  app.logger.Info("stopped");
}

}  // namespace

int RunEngine(int argc, const char* const* argv) {
  BlockSignals();
  StatusOr<ParsedSettings> parsed = ParseEngineSettings(argc, argv);
  if (!parsed.ok()) return Fail(parsed.status());
  if (parsed->outcome.exit) return parsed->outcome.code;
  App app;
  app.settings = std::move(parsed->settings);
  app.logger = MakeLogger(app.log, static_cast<int>(app.settings.verbosity));
  for (const std::string& warning : parsed->outcome.warnings) app.logger.Warn(warning);
  RaiseDescriptorLimit(app.logger);
  app.log_metrics = AddLogMetrics(app.registry, app.log);
  if (Status status = StartTracing(app); !status.ok()) return Fail(status);
  if (Status status = Load(app); !status.ok()) return Fail(status);
  if (Status status = Listen(app); !status.ok()) return Fail(status);
  Serve(app);
  return 0;
}

}  // namespace llmd::services
