#include "sidecar/options.h"

#include <algorithm>
#include <cstdlib>

namespace llmd::sidecar {
namespace {

Status MustBeOff(std::string_view flag, bool value, std::string_view why) {
  if (!value) return OkStatus();
  return Unimplemented("--" + std::string(flag) + " is true: " + std::string(why) + "; pass --" +
                       std::string(flag) + "=false");
}

void AddServing(services::FlagSet& set, Options& o) {
  set.String("host", &o.host, "address to listen on");
  set.Port("port", &o.port, "port to listen on; 0 = any");
  set.String("model-server-host", &o.model_server_host, "host of the engine behind this sidecar");
  set.Port("model-server-port", &o.model_server_port, "port of the engine behind this sidecar");
  set.Alias("vllm-port", "model-server-port", true);
  set.Port("metrics-port", &o.metrics_port, "port of the sidecar's own /metrics; 0 = none");
  set.Int("max-body-bytes", &o.max_body_bytes, 1, int64_t{4} << 30,
          "largest request body; above: 413");
  set.Int("max-idle-conns-per-host", &o.max_idle_per_host, 0, 100'000,
          "idle connections that each I/O thread keeps per engine");
  set.Int("loop-threads", &o.loop_threads, 1, 64, "I/O threads, each with connections of its own");
  set.Duration("drain-timeout", &o.drain_timeout,
               "how long running requests may take after SIGTERM");
  set.Int("v", &o.verbosity, 0, 10, "log verbosity; 4 debug, 5 trace with bodies");
  set.Alias("zap-log-level", "v");
  set.Bool("access-log", &o.access_log, "log a line for each request");
  set.Bool("tracing", &o.tracing, "record spans where the OTEL_ variables say so");
}

// A comma-separated list of legs, each of which gets the property.
Status SetLegs(std::string_view list, Options& o, bool Leg::* property) {
  while (!list.empty()) {
    const std::string_view name = list.substr(0, list.find(','));
    list.remove_prefix(std::min(name.size() + 1, list.size()));
    if (name == "prefiller") {
      o.prefiller.*property = true;
    } else if (name == "decoder") {
      o.decoder.*property = true;
    } else if (name == "encoder") {
      return Unimplemented("'encoder': encoder disaggregation is not built yet");
    } else {
      return InvalidArgument("'" + std::string(name) + "': expected prefiller or decoder");
    }
  }
  return OkStatus();
}

void AddTls(services::FlagSet& set, Options& o) {
  set.Bool("secure-proxy", &o.secure_proxy, "serve TLS (1.2 or newer)");
  set.String("cert-path", &o.serving.cert_path,
             "directory with tls.crt and tls.key, which are followed when they change; without it "
             "a self-signed P-256 certificate");
  services::AddServingTlsFlags(set, o.serving);
  services::AddUpstreamTlsFlags(set, o.upstream);
  set.Custom(
      "enable-tls", [&o](std::string_view list) { return SetLegs(list, o, &Leg::tls); },
      "call the engines of these legs over TLS: prefiller, decoder");
  set.Custom(
      "tls-insecure-skip-verify",
      [&o](std::string_view list) { return SetLegs(list, o, &Leg::skip_verify); },
      "believe any certificate on these legs: prefiller, decoder");
  set.Bool("prefiller-use-tls", &o.prefiller.tls, "older form of --enable-tls");
  set.Bool("decoder-use-tls", &o.decoder.tls, "older form of --enable-tls");
  set.Bool("prefiller-tls-insecure-skip-verify", &o.prefiller.skip_verify,
           "older form of --tls-insecure-skip-verify");
  set.Bool("decoder-tls-insecure-skip-verify", &o.decoder.skip_verify,
           "older form of --tls-insecure-skip-verify");
}

void AddProtocol(services::FlagSet& set, Options& o) {
  set.String("kv-connector", &o.kv_connector, "P/D protocol: nixlv2");
  set.Alias("connector", "kv-connector", true);
  set.String("prefill-failure-policy", &o.failure_policy,
             "relay the prefiller's error, or local-decode");
  set.Int("prefill-max-retries", &o.prefill_max_retries, 0, 100,
          "times one prefiller is asked again after 502, 503, 504");
  set.Duration("prefill-retry-backoff", &o.prefill_retry_backoff, "wait before asking it again");
  set.Duration("prefill-timeout", &o.prefill_timeout, "deadline of the prefill leg");
  set.Duration("decode-timeout", &o.decode_timeout, "longest silence of the decode leg");
  set.Bool("enable-prefiller-sampling", &o.sample_prefillers,
           "start with a random prefiller of the list, not the first");
}

void AddOffSwitches(services::FlagSet& set, Options& o) {
  set.Bool("enable-ssrf-protection", &o.ssrf_protection,
           "allow only prefillers of the pool (not built yet: must be false)");
  set.Bool("enable-p2p-pull", &o.p2p_pull, "not built yet: must be false");
  set.Int("data-parallel-size", &o.data_parallel_size, 1, 1024,
          "ranks behind this sidecar (more than 1: not built yet)");
}

void AddOthers(services::FlagSet& set) {
  for (const char* name : {"mooncake-bootstrap-port", "p2p-connector-port"})
    set.Accepted(name, true, "only nixlv2 is spoken");
  for (const char* name :
       {"pool-group", "inference-pool", "inference-pool-name", "inference-pool-namespace"}) {
    set.Accepted(name, true, "the pool is read for SSRF protection only, which is off");
  }
  for (const char* name : {"zap-encoder", "zap-time-encoding", "zap-stacktrace-level"})
    set.Accepted(name, true, "logs are JSON lines");
  set.Accepted("zap-devel", false, "logs are JSON lines");
  set.NotYet("ec-connector", true, "encoder disaggregation");
  set.NotYet("decode-chunk-size", true, "chunked decode");
  for (const char* name : {"configuration", "configuration-file"})
    set.NotYet(name, true, "YAML configuration of the sidecar");
}

Status CheckTls(const Options& o) {
  if (!o.secure_proxy && o.serving.has_pair()) {
    return InvalidArgument(
        std::string(o.serving.cert_path.empty() ? "--tls-cert-file" : "--cert-path") +
        " is given, but --secure-proxy=false serves clear text");
  }
  if ((o.prefiller.skip_verify && !o.prefiller.tls) || (o.decoder.skip_verify && !o.decoder.tls)) {
    return InvalidArgument(
        "--tls-insecure-skip-verify names a leg that --enable-tls does not: nothing is verified "
        "there");
  }
  if (o.upstream.any() && !o.prefiller.tls && !o.decoder.tls)
    return InvalidArgument("the flags --upstream-tls-… need --enable-tls");
  const bool believes =
      (o.prefiller.tls && !o.prefiller.skip_verify) || (o.decoder.tls && !o.decoder.skip_verify);
  if (!o.upstream.ca_file.empty() && !believes) {
    return InvalidArgument(
        "--upstream-tls-ca-file is given, but --tls-insecure-skip-verify leaves no leg to verify");
  }
  return OkStatus();
}

}  // namespace

pd::FailurePolicy Options::policy() const {
  return pd::ParseFailurePolicy(failure_policy).value_or(pd::FailurePolicy::kRelay);
}

services::FlagSet MakeFlags(Options& options) {
  const char* sampling = std::getenv("ENABLE_PREFILLER_SAMPLING");
  options.sample_prefillers = sampling != nullptr && std::string_view(sampling) == "true";
  services::FlagSet set(
      "llmd-sidecar",
      "P/D routing sidecar: prefill at the peer a header names, then decode at the local engine.");
  AddServing(set, options);
  AddTls(set, options);
  AddProtocol(set, options);
  AddOffSwitches(set, options);
  AddOthers(set);
  return set;
}

Status Validate(const Options& o) {
  LLMD_RETURN_IF_ERROR(CheckTls(o));
  LLMD_RETURN_IF_ERROR(
      MustBeOff("enable-ssrf-protection", o.ssrf_protection, "the pool watch is not built yet"));
  LLMD_RETURN_IF_ERROR(
      MustBeOff("enable-p2p-pull", o.p2p_pull, "pulling from cache holders is not built yet"));
  if (o.data_parallel_size != 1)
    return Unimplemented("--data-parallel-size above 1 is not built yet: run one sidecar per rank");
  if (o.kv_connector != "nixlv2") {
    return Unimplemented("--kv-connector '" + o.kv_connector +
                         "' is not built yet: expected nixlv2");
  }
  LLMD_RETURN_IF_ERROR(
      pd::ParseFailurePolicy(o.failure_policy).status().WithContext("--prefill-failure-policy"));
  if (o.prefill_max_retries > 0 && o.prefill_retry_backoff <= std::chrono::nanoseconds::zero()) {
    return InvalidArgument(
        "--prefill-retry-backoff must be above zero when --prefill-max-retries is");
  }
  if (o.prefill_timeout <= std::chrono::nanoseconds::zero() ||
      o.decode_timeout <= std::chrono::nanoseconds::zero()) {
    return InvalidArgument("--prefill-timeout and --decode-timeout must be above zero");
  }
  if (o.model_server_port == 0) return InvalidArgument("--model-server-port must not be 0");
  return OkStatus();
}

}  // namespace llmd::sidecar
