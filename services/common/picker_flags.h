// The endpoint picker's flags, shared by llmd-epp and by the gateway that schedules in process.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "common/flags.h"
#include "llmd/sched/director.h"
#include "llmd/sched/plugin.h"
#include "llmd/status.h"

namespace llmd::services {

struct PickerFlags {
  std::string config_file, config_text, pools_file;
  std::vector<std::string> plugin_libraries;
  std::string pool_name = "epp", pool_namespace, pool_group = "inference.networking.k8s.io";
  uint16_t metrics_port = 9090;
  std::string metrics_host = "127.0.0.1";
  std::string metrics_cert_dir, metrics_client_ca_file;
  std::chrono::nanoseconds refresh_metrics_interval = std::chrono::milliseconds(50);
  std::chrono::nanoseconds metrics_staleness_threshold = std::chrono::seconds(2);
  std::chrono::nanoseconds drain_timeout = std::chrono::seconds(30);
  bool disable_endpoint_subset_filter = false;
  bool emit_endpoint_scores = false;
  bool allow_experimental_plugins = false;
  bool metrics_endpoint_auth =
      false;  // upstream's default is true with Kubernetes, none in file mode
  bool tracing = true;
  bool tracing_given = false;  // on the command line
  bool config_reload = true;
  bool deprecated_metric_names = true;
  std::string explain_header_token;
  int64_t max_body_bytes = 100 << 20;
  int64_t seed = 0;  // 0 = none given
  int64_t verbosity = 2;
  std::string zap_log_level, zap_encoder = "json";
};

void AddPickerFlags(FlagSet& set, PickerFlags& flags);
// The text of a configuration file of at most 1 MiB; errors name `flag`.
StatusOr<std::string> ReadConfigFile(const std::string& flag, const std::string& path);
// What ToDirectorOptions would say of the flags themselves; reads no file.
Status CheckPickerFlags(const PickerFlags& flags);
// INVALID_ARGUMENT for combinations that cannot be (both --config-file and --config-text),
// UNIMPLEMENTED for a default that must be given explicitly until TLS and token checks exist; the
// message names the flag.
StatusOr<sched::DirectorOptions> ToDirectorOptions(const PickerFlags& flags);
// The built-in plugins and those of the libraries, in the order given.
StatusOr<sched::PluginRegistry> LoadPlugins(const std::vector<std::string>& libraries);
// Gives flags.seed one from the system's random source when it has none, so that it can be logged;
// it fits into a double.
void FixSeed(PickerFlags& flags);
// -v, raised or lowered by --zap-log-level (debug, info, error or a number).
StatusOr<int> Verbosity(const PickerFlags& flags);

}  // namespace llmd::services
