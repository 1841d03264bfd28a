// What `llmd up` is to start: a LlmdCluster document, or the defaults around one model.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "llmd/status.h"

namespace llmd::cli {

struct EngineSpec {
  std::string name;
  std::string role = "decode";    // decode, prefill or both
  int threads = 0;                // 0 = its share of the cores
  int64_t kv_cache_bytes = 0;     // 0 = 128 MiB
  std::vector<std::string> args;  // passed to llmd-engine as they are
};

struct ClusterSpec {
  std::string name = "default";
  std::string model;                // path of a GGUF file
  std::string served_model_name;    // "" = the file's name without its ending
  uint16_t gateway_port = 8000;     // 0 = any free one
  bool picker_process = false;      // a picker of its own (llmd-epp) instead of the gateway's
  std::string config_file;          // EndpointPickerConfig; "" = the built-in P/D configuration
  std::string transport = "auto";   // KV lane between the engines: auto, memfd or tcp
  std::vector<EngineSpec> engines;  // none = one prefill and two decode engines
};

// kind: LlmdCluster. INVALID_ARGUMENT with line and key path.
StatusOr<ClusterSpec> ParseCluster(const std::string& yaml_path);
// Fills what is left open (names, engines, threads shared out over `cores`) and checks the whole.
Status Complete(ClusterSpec& spec, int cores);
// The cores this process may run on.
int AvailableCores();

}  // namespace llmd::cli
