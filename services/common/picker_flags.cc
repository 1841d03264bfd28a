#include "common/picker_flags.h"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "llmd/sched/plugin_library.h"
#include "llmd/uuid.h"

namespace llmd::services {
namespace {

constexpr size_t kMaxConfigBytes = 1 << 20;
constexpr Duration kFloor = std::chrono::milliseconds(50);  // of --refresh-metrics-interval

std::string EnvironmentOr(const char* name, std::string fallback) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0' ? std::string(value) : std::move(fallback);
}

void AddKnownElsewhere(FlagSet& set) {
  set.NotYet("endpoint-selector", true,
             "endpoints come from file-discovery until the Kubernetes watch exists");
  set.NotYet("endpoint-target-ports", true,
             "endpoints come from file-discovery until the Kubernetes watch exists");
  set.NotYet("ha-enable-leader-election", false, "leader election comes with the Kubernetes work");
  set.Accepted("refresh-prometheus-metrics-interval", true,
               "pool gauges are computed when they are read");
  set.Accepted("enable-pprof", false, "this is no Go program; use perf");
  set.Accepted("zap-devel", false, "logs are always JSON, one object a line");
  set.Accepted("zap-stacktrace-level", true, "there are no stack traces in the logs");
  set.Accepted("zap-time-encoding", true, "times are RFC 3339");
}

}  // namespace

StatusOr<std::string> ReadConfigFile(const std::string& flag, const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return NotFound(flag + ": cannot read '" + path + "'");
  std::stringstream text;
  text << in.rdbuf();
  if (text.str().size() > kMaxConfigBytes)
    return InvalidArgument(flag + " '" + path + "' is larger than 1 MiB");
  return text.str();
}

void AddPickerFlags(FlagSet& set, PickerFlags& flags) {
  set.String("config-file", &flags.config_file, "EndpointPickerConfig YAML file");
  set.String("config-text", &flags.config_text, "EndpointPickerConfig YAML, inline");
  set.String("pools-file", &flags.pools_file,
             "several pools (kind EndpointPickerPools), instead of --config-file and --pool-name");
  set.Bool("config-reload", &flags.config_reload,
           "follow changes of --config-file (SIGHUP reads it again in any case)");
  set.List("plugin-library", &flags.plugin_libraries,
           "shared library with plugins of your own (docs/custom-plugins.md); may be repeated");
  set.String("pool-name", &flags.pool_name, "name of the InferencePool");
  set.String("pool-namespace", &flags.pool_namespace,
             "its namespace; default $NAMESPACE, else default");
  set.String("pool-group", &flags.pool_group, "its API group");
  set.Port("metrics-port", &flags.metrics_port,
           "admin port: /metrics, /healthz, /readyz, /debug/decisions; 0 = any");
  set.String("metrics-host", &flags.metrics_host, "address of the admin port");
  set.String("metrics-cert-dir", &flags.metrics_cert_dir,
             "directory with tls.crt and tls.key: TLS on the admin port, changes are followed");
  set.String("metrics-client-ca-file", &flags.metrics_client_ca_file,
             "mTLS on the admin port: clients must show a certificate of this authority (PEM)");
  set.Duration("refresh-metrics-interval", &flags.refresh_metrics_interval,
               "how often each endpoint is scraped; at least 50ms, less counts as that");
  set.Duration("metrics-staleness-threshold", &flags.metrics_staleness_threshold,
               "older gauges count as unknown");
  set.Duration("drain-timeout", &flags.drain_timeout,
               "how long open requests may run on after SIGTERM");
  set.Bool("disable-endpoint-subset-filter", &flags.disable_endpoint_subset_filter,
           "ignore the proxy's subset hint");
  set.Bool("emit-endpoint-scores", &flags.emit_endpoint_scores,
           "write every endpoint's score into the metadata");
  set.Bool("allow-experimental-plugins", &flags.allow_experimental_plugins,
           "admit plugins marked Alpha");
  set.Bool("metrics-endpoint-auth", &flags.metrics_endpoint_auth,
           "token check on the metrics port; needs Kubernetes, so false in file mode");
  set.Bool(
      "tracing", &flags.tracing,
      "export spans as the OTEL_* environment says; without OTEL_TRACES_EXPORTER on the console "
      "where the flag is given, else not at all");
  set.Bool("deprecated-metric-names", &flags.deprecated_metric_names,
           "expose the metrics under their older names too");
  set.String("explain-header-token", &flags.explain_header_token,
             "answer the request header x-llm-d-explain: TOKEN with the decision in the response "
             "header x-llm-d-decision; empty = never");
  set.Int("max-body-bytes", &flags.max_body_bytes, 1, int64_t{1} << 40,
          "larger request bodies get 413");
  set.Int("seed", &flags.seed, 0, INT64_MAX,
          "of tie-breaks and of whatever else is drawn: the same seed and calls give the same "
          "decisions; 0 = a new one each start, logged as seed");
  set.Int("v", &flags.verbosity, 0, 5, "log verbosity: 2 default, 3 verbose, 4 debug, 5 trace");
  set.String("zap-log-level", &flags.zap_log_level, "debug, info, error or a verbosity number");
  set.String("zap-encoder", &flags.zap_encoder, "json");
  AddKnownElsewhere(set);
}

void FixSeed(PickerFlags& flags) {
  constexpr int kBitsBeyondADouble = 11;
  while (flags.seed == 0) flags.seed = static_cast<int64_t>(RandomBits() >> kBitsBeyondADouble);
}

StatusOr<int> Verbosity(const PickerFlags& flags) {
  const std::string& level = flags.zap_log_level;
  if (level.empty()) return static_cast<int>(flags.verbosity);
  if (level == "debug") return 4;
  if (level == "info") return 0;
  if (level == "error") return static_cast<int>(LogLevel::kError);
  int number = 0;
  const auto [end, error] = std::from_chars(level.data(), level.data() + level.size(), number);
  if (error != std::errc() || end != level.data() + level.size() || number < 0 || number > 10) {
    return InvalidArgument("--zap-log-level '" + level +
                           "': expected debug, info, error or a number of 0 to 10");
  }
  return number;
}

StatusOr<sched::PluginRegistry> LoadPlugins(const std::vector<std::string>& libraries) {
  sched::PluginRegistry registry = sched::BuiltinPlugins();
  for (const std::string& path : libraries)
    LLMD_RETURN_IF_ERROR(sched::LoadPluginLibrary(path, registry).WithContext("--plugin-library"));
  return registry;
}

Status CheckPickerFlags(const PickerFlags& flags) {
  if (!flags.config_file.empty() && !flags.config_text.empty()) {
    return InvalidArgument("--config-file and --config-text exclude each other");
  }
  if (!flags.pools_file.empty() && (!flags.config_file.empty() || !flags.config_text.empty())) {
    return InvalidArgument(
        "--pools-file names the configurations: no --config-file or --config-text");
  }
  if (flags.metrics_endpoint_auth) {
    return Unimplemented(
        "--metrics-endpoint-auth: the token check needs Kubernetes; in file mode pass "
        "--metrics-endpoint-auth=false");
  }
  if (flags.zap_encoder != "json") {
    return InvalidArgument("--zap-encoder '" + flags.zap_encoder +
                           "': logs are JSON only; expected json");
  }
  return OkStatus();
}

StatusOr<sched::DirectorOptions> ToDirectorOptions(const PickerFlags& flags) {
  LLMD_RETURN_IF_ERROR(CheckPickerFlags(flags));
  sched::DirectorOptions options;
  options.config_yaml = flags.config_text;
  options.config_path = flags.config_file;
  if (!flags.config_file.empty()) {
    LLMD_ASSIGN_OR_RETURN(options.config_yaml, ReadConfigFile("--config-file", flags.config_file));
  }
  if (!flags.plugin_libraries.empty()) {
    LLMD_ASSIGN_OR_RETURN(sched::PluginRegistry registry, LoadPlugins(flags.plugin_libraries));
    options.registry = std::make_shared<const sched::PluginRegistry>(std::move(registry));
  }
  options.attach_trace = false;
  options.seed = static_cast<uint64_t>(flags.seed);
  options.explain_token = flags.explain_header_token;
  options.watch_config = flags.config_reload;
  options.pool_name = flags.pool_name;
  options.pool_namespace =
      flags.pool_namespace.empty() ? EnvironmentOr("NAMESPACE", "default") : flags.pool_namespace;
  options.refresh_metrics_interval = std::max<Duration>(flags.refresh_metrics_interval, kFloor);
  options.metrics_staleness = flags.metrics_staleness_threshold;
  options.emit_endpoint_scores = flags.emit_endpoint_scores;
  options.disable_subset_filter = flags.disable_endpoint_subset_filter;
  options.allow_experimental = flags.allow_experimental_plugins;
  options.max_body_bytes = static_cast<size_t>(flags.max_body_bytes);
  options.attach_trace = false;  // /debug/decisions makes them when it is asked
  return options;
}

}  // namespace llmd::services
