#include <pybind11/stl.h>

#include <condition_variable>
#include <mutex>

#include "bindings.h"
#include "fork_guard.h"
#include "llmd/engine/engine.h"
#include "llmd/engine/serving/metrics.h"
#include "llmd/engine/serving/reply.h"
#include "llmd/engine/weights/chat_templates.h"
#include "log_queue.h"

namespace llmd::python {
namespace {

namespace serving = engine::serving;

struct EngineSettings {
  std::string path;
  int threads = 0, max_model_len = 0, block_size = 16;
  int64_t kv_cache_bytes = 0;
  std::string dtype, quantization;
};

StatusOr<engine::ModelOptions> ToModelOptions(const EngineSettings& settings) {
  engine::ModelOptions options;
  options.threads = settings.threads;
  if (settings.dtype == "float32") {
    options.dtype = engine::DType::kFloat32;
  } else if (settings.dtype == "bfloat16") {
    options.dtype = engine::DType::kBFloat16;
  } else if (settings.dtype != "auto") {
    return InvalidArgument("dtype '" + settings.dtype + "': expected auto, float32 or bfloat16");
  }
  if (settings.quantization == "w8a8") {
    options.quantization = engine::Quantization::kW8A8;
  } else if (!settings.quantization.empty()) {
    return InvalidArgument("quantization '" + settings.quantization + "': expected '' or w8a8");
  }
  return options;
}

// A model in this process behind the same serving code as llmd-engine: OpenAI bodies in and out, no
// HTTP.
class PyEngine {
 public:
  static StatusOr<std::unique_ptr<PyEngine>> Create(const EngineSettings& settings,
                                                    const Logger& logger) {
    LLMD_ASSIGN_OR_RETURN(const engine::ModelOptions model_options, ToModelOptions(settings));
    LLMD_ASSIGN_OR_RETURN(const auto file, engine::ModelFile::Open(settings.path));
    LLMD_ASSIGN_OR_RETURN(text::TokenizerSpec spec, file->tokenizer());
    auto self = std::unique_ptr<PyEngine>(new PyEngine());
    LLMD_ASSIGN_OR_RETURN(self->tokenizer_, text::MakeTokenizer(std::move(spec)));
    self->templates_ = engine::ReadChatTemplates(*file);
    LLMD_ASSIGN_OR_RETURN(auto model, engine::LoadModel(*file, model_options));
    engine::EngineOptions options;
    options.block_size = settings.block_size;
    options.max_model_len = settings.max_model_len;
    options.kv_cache_bytes = static_cast<size_t>(settings.kv_cache_bytes);
    LLMD_ASSIGN_OR_RETURN(self->engine_, engine::Engine::Create(std::move(model), options, logger,
                                                                self->registry_, SystemClock()));
    self->MakeContext(settings.path, logger);
    return self;
  }

  // Its threads are not in a child process: there nothing works, and nothing can be joined.
  bool Forked() const { return generation_ != ForkGeneration(); }

  // The reply's JSON. Runs without the GIL but for a look at Python's signals ten times a second.
  std::string Run(bool chat, const std::string& body) {
    if (Forked())
      Raise(FailedPrecondition(
          "this engine was made before the process was forked: make one of its own in the child"));
    std::unique_ptr<serving::Reply> reply;
    openai::MaybeError error;
    {
      py::gil_scoped_release release;
      serving::RequestMeta meta;
      meta.arrival = SystemClock().Now();
      error = (chat ? serving::BeginChat : serving::BeginCompletion)(*context_, body, meta, &reply);
    }
    if (error) Raise(ToStatus(*error));
    if (reply->stream())
      Raise(InvalidArgument("stream: this call returns whole answers; leave it out"));
    std::string out = WaitFor(*reply);
    if (reply->error()) Raise(ToStatus(*reply->error()));
    return out;
  }

 private:
  PyEngine() = default;

  struct Wake {
    std::mutex mutex;
    std::condition_variable changed;
    bool ready = true;
  };

  static std::string WaitFor(serving::Reply& reply) {
    auto wake = std::make_shared<Wake>();
    reply.OnReady([wake] {
      std::lock_guard lock(wake->mutex);
      wake->ready = true;
      wake->changed.notify_one();
    });
    std::string out;
    for (;;) {
      bool done = false;
      {
        py::gil_scoped_release release;
        std::unique_lock lock(wake->mutex);
        const bool ready = wake->changed.wait_for(lock, std::chrono::milliseconds(100),
                                                  [&] { return wake->ready; });
        wake->ready = false;
        lock.unlock();
        done = ready && reply.Advance(out);
      }
      if (done) return out;
      if (PyErr_CheckSignals() != 0) {
        reply.Abort();
        throw py::error_already_set();
      }
    }
  }

  static Status ToStatus(const openai::ApiError& error) {
    const StatusCode code = error.status == 404   ? StatusCode::kNotFound
                            : error.status == 429 ? StatusCode::kResourceExhausted
                            : error.status == 501 ? StatusCode::kUnimplemented
                            : error.status == 503 ? StatusCode::kUnavailable
                            : error.status < 500  ? StatusCode::kInvalidArgument
                                                  : StatusCode::kInternal;
    return {code, error.message};
  }

  void MakeContext(const std::string& path, const Logger& logger) {
    const auto& config = engine_->model().config();
    const int max_len = engine_->options().max_model_len;
    metrics_ =
        std::make_unique<serving::ServingMetrics>(registry_, *engine_, path, 0, max_len, "auto");
    serving::ServingOptions options;
    options.model_names = {path};
    options.model_root = path;
    options.max_model_len = max_len;
    options.vocab_size = config.vocab;
    options.enable_prompt_tokens_details = true;
    options.log_requests = false;
    context_.reset(new serving::ServingContext{*engine_, *tokenizer_, templates_, *metrics_,
                                               SystemClock(), logger, options});
  }

  const int generation_ = ForkGeneration();
  MetricsRegistry registry_;
  std::unique_ptr<text::Tokenizer> tokenizer_;
  text::ChatTemplates templates_;
  std::unique_ptr<engine::Engine> engine_;
  std::unique_ptr<serving::ServingMetrics> metrics_;
  std::unique_ptr<serving::ServingContext> context_;
};

struct UnlessForked {
  void operator()(PyEngine* engine) const {
    if (!engine->Forked()) delete engine;
  }
};
using EngineHolder = std::unique_ptr<PyEngine, UnlessForked>;

EngineHolder MakeEngine(std::string path, int threads, int max_model_len, int block_size,
                        int64_t kv_cache_bytes, std::string dtype, std::string quantization) {
  if (kv_cache_bytes < (1 << 20)) Raise(InvalidArgument("kv_cache_bytes: expected at least 1 MiB"));
  EngineSettings settings{std::move(path), threads,          max_model_len,          block_size,
                          kv_cache_bytes,  std::move(dtype), std::move(quantization)};
  const Logger logger = PythonLogger();
  StatusOr<std::unique_ptr<PyEngine>> made = Internal("not made");
  {
    py::gil_scoped_release release;
    made = PyEngine::Create(settings, logger);
  }
  DeliverLogs();
  return EngineHolder(Value(std::move(made)).release());
}

py::object Call(PyEngine& engine, bool chat, const py::dict& body) {
  const py::module_ json = py::module_::import("json");
  const std::string reply = engine.Run(chat, json.attr("dumps")(body).cast<std::string>());
  DeliverLogs();
  return json.attr("loads")(reply);
}

std::string Generate(PyEngine& engine, const std::string& prompt, int max_tokens,
                     double temperature, double top_p, int top_k, const py::object& seed,
                     const py::object& stop) {
  py::dict body;
  body["prompt"] = prompt;
  body["max_tokens"] = max_tokens;
  body["temperature"] = temperature;
  body["top_p"] = top_p;
  body["top_k"] = top_k;
  if (!seed.is_none()) body["seed"] = seed;
  if (!stop.is_none()) body["stop"] = stop;
  const py::object reply = Call(engine, false, body);
  return reply["choices"][py::int_(0)]["text"].cast<std::string>();
}

}  // namespace

void BindEngine(py::module_& m) {
  py::class_<PyEngine, EngineHolder>(
      m, "Engine",
      "An inference engine in this process: one GGUF model, continuous batching, prefix caching. "
      "Not for child processes: a fork's copy raises Error (FAILED_PRECONDITION).")
      .def(py::init(&MakeEngine), py::arg("path"), py::kw_only(), py::arg("threads") = 0,
           py::arg("max_model_len") = 0, py::arg("block_size") = 16,
           py::arg("kv_cache_bytes") = int64_t{256} << 20, py::arg("dtype") = "auto",
           py::arg("quantization") = "",
           "threads: 0 = all cores; max_model_len: tokens, 0 = the model's; dtype: auto, float32, "
           "bfloat16; quantization: '' or w8a8.")
      .def("generate", &Generate, py::arg("prompt"), py::kw_only(), py::arg("max_tokens") = 16,
           py::arg("temperature") = 0.0, py::arg("top_p") = 1.0, py::arg("top_k") = 0,
           py::arg("seed") = py::none(), py::arg("stop") = py::none(),
           "The text that continues `prompt`; greedy by default. Thread-safe: concurrent calls "
           "share batches. KeyboardInterrupt ends it within a second.")
      .def(
          "complete", [](PyEngine& e, const py::dict& body) { return Call(e, false, body); },
          py::arg("body"), "A /v1/completions body in, its reply out, both dicts.")
      .def(
          "chat", [](PyEngine& e, const py::dict& body) { return Call(e, true, body); },
          py::arg("body"), "A /v1/chat/completions body in, its reply out, both dicts.");
}

}  // namespace llmd::python
