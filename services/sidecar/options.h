// The command line of llmd-sidecar: the field's names and defaults.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "common/flags.h"
#include "common/relay_tls.h"
#include "llmd/pd/protocol.h"
#include "llmd/status.h"

namespace llmd::sidecar {

// How the engine of one leg is called.
struct Leg {
  bool tls = false, skip_verify = false;
  std::string_view scheme() const { return tls ? "https" : "http"; }
};

struct Options {
  std::string host = "0.0.0.0";
  uint16_t port = 8000;
  std::string model_server_host = "127.0.0.1";
  uint16_t model_server_port = 8200;
  uint16_t metrics_port = 0;  // 0 = no port of its own
  std::string kv_connector = "nixlv2";
  std::string failure_policy = "relay";
  bool secure_proxy = true;
  services::ServingTlsFlags serving;  // but whether it is secure
  services::UpstreamTlsFlags upstream;
  Leg prefiller, decoder;
  bool sample_prefillers = false;
  int64_t max_idle_per_host = 1024;
  int64_t prefill_max_retries = 0;
  int64_t max_body_bytes = 100 << 20;
  int64_t loop_threads = 1;
  int64_t verbosity = 2;
  bool access_log = true;
  bool tracing = true, tracing_given = false;
  std::chrono::nanoseconds prefill_retry_backoff = std::chrono::milliseconds(200);
  std::chrono::nanoseconds prefill_timeout = std::chrono::minutes(5);
  std::chrono::nanoseconds decode_timeout = std::chrono::minutes(10);
  std::chrono::nanoseconds drain_timeout = std::chrono::seconds(60);
  // Known switches that must stay off.
  bool ssrf_protection = false, p2p_pull = false;
  int64_t data_parallel_size = 1;

  pd::FailurePolicy policy() const;
};

services::FlagSet MakeFlags(Options& options);
// What the flags mean together. INVALID_ARGUMENT or UNIMPLEMENTED naming the flag and what to pass
// instead.
Status Validate(const Options& options);

}  // namespace llmd::sidecar
