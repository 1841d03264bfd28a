// EndpointPickerConfig (docs/config.md): strict decoding, automatic completion, and the
// plugin graph it describes.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "llmd/log.h"
#include "llmd/metrics.h"
#include "llmd/sched/data/fetch.h"
#include "llmd/sched/plugin.h"
#include "llmd/status.h"

namespace llmd::sched {

struct Graph;  // the built plugins (src/graph.h); immutable, shared by the requests that use it

struct LoadOptions {
  const PluginRegistry* registry = nullptr;  // null = BuiltinPlugins()
  const Clock* clock = nullptr;              // null = SystemClock()
  MetricsRegistry* metrics = nullptr;        // null = a private one
  Logger logger;
  std::shared_ptr<Fetch> fetch;    // for plugins that call engines; may be null
  bool allow_experimental = true;  // plugins marked Alpha are errors without it
  std::string pool_namespace = "default";
  Duration refresh_interval = std::chrono::milliseconds(50);  // --refresh-metrics-interval
  Duration metrics_staleness = std::chrono::seconds(2);       // --metrics-staleness-threshold
  std::string source_name;                                    // file name for messages
  // On a reload: its plugins of equal name, type and parameters are taken over with their state.
  // It is left as it was.
  std::shared_ptr<const Graph> previous = nullptr;
};

// The configuration upstream uses when none is given.
std::string_view DefaultConfigYaml();

// Builds the graph. INVALID_ARGUMENT holds every error found, one a line, with line number and key
// path.
StatusOr<std::shared_ptr<Graph>> LoadGraph(std::string_view yaml, const LoadOptions& options);

// What the loader completed and what it finds doubtful, for logs and `lint`.
std::vector<std::string> GraphWarnings(const Graph& graph);
// The configuration as completed: plugins, profiles with weights, handler, producers in run order.
json::Value DescribeGraph(const Graph& graph);

}  // namespace llmd::sched
