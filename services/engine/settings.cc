#include "engine/settings.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>

#include "llmd/json.h"

namespace llmd::services {
namespace {

using engine::EngineOptions;

std::function<Status(std::string_view)> IntoInt(int* target, int64_t least) {
  return [target, least](std::string_view text) -> Status {
    LLMD_ASSIGN_OR_RETURN(const int64_t value, ParseHumanInt(text));
    if (value != 0 && (value < least || value > INT32_MAX)) {
      return InvalidArgument("'" + std::string(text) + "' is out of range");
    }
    *target = static_cast<int>(value);
    return OkStatus();
  };
}

std::function<Status(std::string_view)> OneOf(std::string* target, std::vector<std::string> words) {
  return [target, words = std::move(words)](std::string_view text) -> Status {
    if (std::find(words.begin(), words.end(), text) != words.end()) {
      *target = text;
      return OkStatus();
    }
    std::string known;
    for (const std::string& word : words) known += (known.empty() ? "" : ", ") + word;
    return InvalidArgument("'" + std::string(text) + "' is not one of " + known);
  };
}

// A flag of which only one value is built.
std::function<Status(std::string_view)> Only(std::string value, std::string why) {
  return [value = std::move(value), why = std::move(why)](std::string_view text) -> Status {
    if (text == value) return OkStatus();
    return Unimplemented("'" + std::string(text) + "': " + why);
  };
}

void AddServerFlags(FlagSet& flags, EngineSettings& s, bool* no_access_log, bool* no_stats,
                    bool* no_log_requests) {
  flags.Positional("MODEL", &s.model, "path of a GGUF file");
  flags.String("model", &s.model, "the same as MODEL");
  flags.String("host", &s.host, "address to listen on");
  flags.Port("port", &s.port, "port to listen on; 0 = any free one");
  flags.List("served-model-name", &s.served_names,
             "names clients may use; the first one is in replies", true);
  flags.List("api-key", &s.api_keys, "bearer token for /v1 (env VLLM_API_KEY)", true);
  flags.String("root-path", &s.root_path, "prefix under which a proxy mounts the server");
  flags.Int("api-server-count", &s.loop_threads, 1, 64, "threads that speak HTTP");
  flags.Int("tokenizer-threads", &s.worker_threads, 1, 64, "threads that template and tokenise");
  flags.Bool("enable-request-id-headers", &s.enable_request_id_headers,
             "echo or create X-Request-Id");
  flags.Bool("enable-server-load-tracking", &s.enable_server_load_tracking,
             "count requests in /load");
  flags.Bool("enable-log-requests", &s.serving.log_requests, "log every request with its prompt");
  flags.Bool("disable-log-requests", no_log_requests, "the opposite of --enable-log-requests");
  flags.Bool("disable-uvicorn-access-log", no_access_log, "no access lines");
  flags.Bool("disable-log-stats", no_stats, "no periodic line of throughput and cache use");
  flags.String("otlp-traces-endpoint", &s.otlp_traces_endpoint,
               "export spans over OTLP to this address (docs/tracing.md)");
  flags.Bool("tracing", &s.tracing, "record spans where the OTEL_ variables say so");
  flags.Duration("drain-timeout", &s.drain_timeout, "how long SIGTERM lets requests finish");
  flags.Int("v", &s.verbosity, 0, 5, "log verbosity: 2 default, 4 debug, 5 trace");
}

void AddServingFlags(FlagSet& flags, EngineSettings& s) {
  flags.Custom(
      "max-logprobs",
      [&s](std::string_view text) -> Status {
        const auto end =
            std::from_chars(text.data(), text.data() + text.size(), s.serving.max_logprobs);
        if (end.ec == std::errc() && end.ptr == text.data() + text.size() &&
            s.serving.max_logprobs >= -1)
          return OkStatus();
        return InvalidArgument("'" + std::string(text) + "': expected an integer of at least -1");
      },
      "most logprobs a request may ask for; -1 = the vocabulary (default 20)");
  flags.String("chat-template", &s.chat_template,
               "a template, or the path of one, instead of the model's");
  flags.String("response-role", &s.serving.response_role, "role of chat answers");
  flags.Bool("trust-request-chat-template", &s.serving.parse.trust_request_chat_template,
             "allow chat_template in requests");
  flags.Bool("enable-prompt-tokens-details", &s.serving.enable_prompt_tokens_details,
             "cached_tokens in usage");
  flags.Bool("enable-force-include-usage", &s.serving.force_include_usage,
             "usage in every streamed chunk");
  flags.Custom("max-model-len", IntoInt(&s.engine.max_model_len, 1),
               "longest prompt + output, tokens: 8192, 8k, 8K, auto");
}

void AddEngineFlags(FlagSet& flags, EngineSettings& s) {
  EngineOptions& e = s.engine;
  flags.Custom("block-size", IntoInt(&e.block_size, 1), "tokens per KV block (default 16)");
  flags.Custom("max-num-seqs", IntoInt(&e.max_num_seqs, 1),
               "most sequences in one step (default 128)");
  flags.Custom("max-num-batched-tokens", IntoInt(&e.max_num_batched_tokens, 1),
               "most tokens in one step (default 2048)");
  flags.Custom("long-prefill-token-threshold", IntoInt(&e.long_prefill_token_threshold, 1),
               "longest piece of a prompt per step; 0 = the whole budget");
  flags.Custom("num-gpu-blocks-override", IntoInt(&e.num_blocks, 2),
               "blocks in the KV pool, over --kv-cache-memory-bytes");
  flags.Custom(
      "kv-cache-memory-bytes",
      [&e](std::string_view text) -> Status {
        LLMD_ASSIGN_OR_RETURN(const int64_t bytes, ParseHumanInt(text));
        if (bytes > 0) e.kv_cache_bytes = static_cast<size_t>(bytes);
        return OkStatus();
      },
      "size of the KV pool: bytes, 256M, 1.5G (default 256M)");
  flags.Bool("enable-prefix-caching", &e.enable_prefix_caching, "reuse the KV of equal prefixes");
  flags.Bool("enable-chunked-prefill", &e.enable_chunked_prefill, "split prompts over steps");
  flags.Custom("scheduling-policy", OneOf(&e.scheduling_policy, {"fcfs", "priority"}),
               "fcfs (default) or priority");
  flags.String("prefix-caching-hash-algo", &e.hash_algorithm, "hash of KV blocks");
  flags.Custom(
      "seed",
      [&e](std::string_view text) -> Status {
        LLMD_ASSIGN_OR_RETURN(const int64_t seed, ParseHumanInt(text));
        e.seed = static_cast<uint64_t>(seed);
        return OkStatus();
      },
      "seed of sampling without a seed of its own (default 0)");
  flags.String("kv-transfer-config", &s.kv_transfer_config,
               "JSON: prefill/decode hand-over (kv_connector NixlConnector)");
  flags.Custom("dtype", OneOf(&s.dtype, {"auto", "float32", "float", "bfloat16"}),
               "arithmetic (default auto)");
  flags.Custom("quantization", OneOf(&s.quantization, {"w8a8"}), "w8a8: 8-bit activations");
  flags.Custom("threads", IntoInt(&s.weights.threads, 1),
               "threads of the model; 0 = the cores this process may use");
}

void AddOtherFlags(FlagSet& flags) {
  flags.Custom("tensor-parallel-size", Only("1", "one device per engine so far"), "1");
  flags.Custom("pipeline-parallel-size", Only("1", "one device per engine so far"), "1");
  flags.Custom("data-parallel-size", Only("1", "start one llmd-engine per replica"), "1");
  flags.Custom("kv-cache-dtype", Only("auto", "the pool has the type of the arithmetic"), "auto");
  flags.Custom(
      "load-format",
      [](std::string_view text) -> Status {
        if (text == "auto" || text == "gguf") return OkStatus();
        return Unimplemented("'" + std::string(text) + "': only gguf files are read");
      },
      "auto or gguf");
  flags.Custom(
      "generation-config",
      [](std::string_view text) -> Status {
        if (text == "auto" || text == "vllm") return OkStatus();
        return Unimplemented("'" + std::string(text) + "': GGUF files carry no generation config");
      },
      "auto or vllm");
  for (const char* name :
       {"disable-access-log-for-endpoints", "all2all-backend", "moe-backend", "eplb-config",
        "mm-processor-cache-gb", "model-loader-extra-config", "compilation-config",
        "gpu-memory-utilization", "swap-space", "nnodes", "node-rank", "master-addr"}) {
    flags.Accepted(name, true, "means nothing to this engine");
  }
  flags.Accepted("collect-detailed-traces", true,
                 "spans of queue, KV load, prefill and decode are always recorded");
  for (const char* name :
       {"trust-remote-code", "enable-expert-parallel", "enable-eplb", "enable-dbo", "enforce-eager",
        "disable-hybrid-kv-cache-manager", "no-disable-hybrid-kv-cache-manager", "async-scheduling",
        "no-enable-flashinfer-autotune", "enable-scale-out"}) {
    flags.Accepted(name, false, "means nothing to this engine");
  }
  for (const char* name : {"uds",
                           "kv-events-config",
                           "ssl-keyfile",
                           "ssl-certfile",
                           "ssl-ca-certs",
                           "lora-modules",
                           "max-loras",
                           "max-lora-rank",
                           "max-cpu-loras",
                           "chat-template-content-format",
                           "tool-call-parser",
                           "reasoning-parser",
                           "override-generation-config",
                           "data-parallel-rank",
                           "data-parallel-size-local",
                           "data-parallel-start-rank",
                           "data-parallel-address",
                           "data-parallel-rpc-port",
                           "tokenizer",
                           "revision",
                           "hf-overrides",
                           "stream-interval",
                           "config"}) {
    flags.NotYet(name, true, "this engine has no such part so far");
  }
  for (const char* name :
       {"enable-lora", "enable-auto-tool-choice", "enable-sleep-mode", "data-parallel-hybrid-lb"}) {
    flags.NotYet(name, false, "this engine has no such part so far");
  }
}

std::string Env(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

Status ReadEnvironment(EngineSettings* s) {
  if (s->api_keys.empty() && !Env("VLLM_API_KEY").empty())
    s->api_keys.push_back(Env("VLLM_API_KEY"));
  const std::string dev_mode = Env("VLLM_SERVER_DEV_MODE");
  s->dev_mode = !dev_mode.empty() && dev_mode != "0";
  engine::KvTransferOptions& transfer = s->engine.kv_transfer;
  if (std::string host = Env("VLLM_NIXL_SIDE_CHANNEL_HOST"); !host.empty())
    transfer.side_channel_host = host;
  if (transfer.side_channel_host == "127.0.0.1" && !Env("POD_IP").empty())
    transfer.side_channel_host = Env("POD_IP");
  const std::string port = Env("VLLM_NIXL_SIDE_CHANNEL_PORT");
  if (port.empty()) return OkStatus();
  const auto end =
      std::from_chars(port.data(), port.data() + port.size(), transfer.side_channel_port);
  if (end.ec == std::errc() && end.ptr == port.data() + port.size()) return OkStatus();
  return InvalidArgument("VLLM_NIXL_SIDE_CHANNEL_PORT=" + port + ": expected a port of 0 to 65535");
}

Status Finish(EngineSettings* s) {
  if (s->model.empty()) return InvalidArgument("no model: llmd-engine serve MODEL, a GGUF file");
  if (s->dtype == "float32" || s->dtype == "float") s->weights.dtype = engine::DType::kFloat32;
  if (s->dtype == "bfloat16") s->weights.dtype = engine::DType::kBFloat16;
  if (s->quantization == "w8a8") s->weights.quantization = engine::Quantization::kW8A8;
  s->weights.max_tokens_per_step = s->engine.max_num_batched_tokens;
  s->weights.max_position = s->engine.max_model_len;
  s->serving.model_names =
      s->served_names.empty() ? std::vector<std::string>{s->model} : s->served_names;
  s->serving.model_root = s->model;
  constexpr uint16_t kSideChannelPort = 5600;
  s->engine.kv_transfer.side_channel_port = kSideChannelPort;
  LLMD_RETURN_IF_ERROR(ReadEnvironment(s));
  if (s->kv_transfer_config.empty()) return OkStatus();
  return ApplyKvTransferConfig(s->kv_transfer_config, &s->engine)
      .WithContext("--kv-transfer-config");
}

Status ApplyExtra(const json::Value& extra, engine::KvTransferOptions* transfer) {
  for (const auto& [key, value] : extra.AsObject()) {
    if (key == "transport" && value.is_string()) {
      transfer->transport = value.AsString();
    } else if (key == "require" && value.is_string()) {
      transfer->require = value.AsString();
    } else if (key == "kv_lease_duration" && value.is_number() && value.AsDouble() > 0) {
      transfer->lease =
          std::chrono::duration_cast<Duration>(std::chrono::duration<double>(value.AsDouble()));
    } else {
      return InvalidArgument(
          "kv_connector_extra_config." + key +
          ": expected transport, require (strings) or kv_lease_duration (seconds)");
    }
  }
  return OkStatus();
}

}  // namespace

StatusOr<int64_t> ParseHumanInt(std::string_view text) {
  if (text == "auto" || text == "-1") return int64_t{0};
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const std::string_view unit(end, text.data() + text.size() - end);
  constexpr std::string_view kUnits = "kmgt";
  double scale = 1;
  if (unit.size() == 1) {
    const bool binary = unit[0] >= 'A' && unit[0] <= 'Z';
    const size_t power = kUnits.find(static_cast<char>(binary ? unit[0] - 'A' + 'a' : unit[0]));
    scale = power == std::string_view::npos ? 0 : std::pow(binary ? 1024.0 : 1000.0, power + 1);
  }
  const double value = number * scale;
  if (error != std::errc() || unit.size() > 1 || scale == 0 || value < 0 || value > 9e15 ||
      value != std::trunc(value)) {
    return InvalidArgument("'" + std::string(text) +
                           "': expected a whole number, with k, K, m, M, g or G, or auto");
  }
  return static_cast<int64_t>(value);
}

Status ApplyKvTransferConfig(std::string_view text, EngineOptions* options) {
  LLMD_ASSIGN_OR_RETURN(const json::Value config, json::Parse(text));
  if (!config.is_object()) return InvalidArgument("expected a JSON object");
  for (const auto& [key, value] : config.AsObject()) {
    if (key == "kv_connector") {
      if (value.AsString() != "NixlConnector") {
        return Unimplemented("kv_connector " + value.Dump() + ": only NixlConnector is built");
      }
      options->kv_transfer.connector = value.AsString();
    } else if (key == "engine_id") {
      options->engine_id = value.AsString();
    } else if (key == "kv_connector_extra_config") {
      LLMD_RETURN_IF_ERROR(ApplyExtra(value, &options->kv_transfer));
    } else if (key != "kv_role" && key != "kv_buffer_device" && key != "kv_buffer_size" &&
               key != "kv_rank" && key != "kv_parallel_size" && key != "kv_ip" &&
               key != "kv_port" && key != "kv_load_failure_policy") {
      return InvalidArgument("unknown key '" + key + "'");
    }
  }
  if (options->kv_transfer.connector.empty()) return InvalidArgument("kv_connector is missing");
  return OkStatus();
}

StatusOr<ParsedSettings> ParseEngineSettings(int argc, const char* const* argv) {
  ParsedSettings parsed;
  EngineSettings& s = parsed.settings;
  bool no_access_log = false, no_stats = false, no_log_requests = false;
  FlagSet flags("llmd-engine",
                "Inference engine with vLLM's HTTP API: llmd-engine serve MODEL [flags]");
  AddServerFlags(flags, s, &no_access_log, &no_stats, &no_log_requests);
  AddServingFlags(flags, s);
  AddEngineFlags(flags, s);
  AddOtherFlags(flags);
  std::vector<const char*> words(argv, argv + argc);
  if (words.size() > 1 && std::string_view(words[1]) == "serve") words.erase(words.begin() + 1);
  parsed.outcome = flags.Parse(static_cast<int>(words.size()), words.data());
  if (parsed.outcome.exit) return parsed;
  s.access_log = !no_access_log;
  s.log_stats = !no_stats;
  s.tracing_given = parsed.outcome.Given("tracing");
  if (no_log_requests) s.serving.log_requests = false;
  LLMD_RETURN_IF_ERROR(Finish(&s));
  return parsed;
}

}  // namespace llmd::services
