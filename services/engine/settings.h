// The command line and environment of llmd-engine, as `vllm serve` has them, turned into the
// options of the parts.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "common/flags.h"
#include "llmd/engine/engine.h"
#include "llmd/engine/model.h"
#include "llmd/engine/serving/context.h"
#include "llmd/status.h"

namespace llmd::services {

struct EngineSettings {
  std::string model;  // path of the weights
  std::string host = "0.0.0.0";
  uint16_t port = 8200;
  std::vector<std::string> served_names, api_keys;
  std::string root_path, chat_template, quantization, dtype = "auto";
  std::string kv_transfer_config, otlp_traces_endpoint;
  engine::EngineOptions engine;
  engine::ModelOptions weights;
  engine::serving::ServingOptions serving;
  int64_t loop_threads = 1, worker_threads = 1, verbosity = 2;
  bool enable_request_id_headers = false, enable_server_load_tracking = false;
  bool access_log = true, log_stats = true, dev_mode = false;
  bool tracing = true, tracing_given = false;
  std::chrono::nanoseconds drain_timeout = std::chrono::seconds(30);
};

struct ParsedSettings {
  EngineSettings settings;
  FlagSet::Outcome outcome;  // when outcome.exit, settings are void
};

// Reads argv ("serve" may stand first) and the environment. INVALID_ARGUMENT names the flag or
// variable.
StatusOr<ParsedSettings> ParseEngineSettings(int argc, const char* const* argv);

// "8192", "8k" = 8000, "8K" = 8192, "1.5G"; -1 and "auto" give 0, which means "choose".
StatusOr<int64_t> ParseHumanInt(std::string_view text);
// The JSON of --kv-transfer-config (docs/wire/kv-transfer-params.md, "Settings").
Status ApplyKvTransferConfig(std::string_view text, engine::EngineOptions* options);

}  // namespace llmd::services
