// What every plugin is made from: a registry of descriptors, typed parameters, and the environment
// a factory builds in. A plugin object may implement several kinds (filter.h, scorer.h …); the
// graph finds them by dynamic_cast once, at load.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "llmd/clock.h"
#include "llmd/config.h"
#include "llmd/log.h"
#include "llmd/metrics.h"
#include "llmd/registry.h"
#include "llmd/sched/endpoint.h"
#include "llmd/sched/ledger.h"
#include "llmd/sched/request_context.h"
#include "llmd/status.h"

namespace llmd::sched {

// Base of all kinds; kinds derive virtually from it. Plugins must be thread-safe: one object serves
// all requests.
class Plugin {
 public:
  virtual ~Plugin() = default;
  const std::string& name() const { return name_; }  // as configured
  const std::string& type() const { return type_; }

 private:
  friend class GraphBuilder;
  std::string name_, type_;
};

// Typed reads of a plugin's parameters. Every read names its default; errors are collected, unknown
// keys are one of them.
class Params {
 public:
  explicit Params(config::Node node) : node_(std::move(node)) {}
  double Double(std::string_view key, double fallback, double min, double max);
  int64_t Int(std::string_view key, int64_t fallback, int64_t min, int64_t max);
  bool Bool(std::string_view key, bool fallback);
  std::string String(std::string_view key, std::string fallback);
  std::string Choice(std::string_view key, std::string fallback,
                     const std::vector<std::string>& choices);
  Duration Time(std::string_view key, Duration fallback);
  std::vector<std::string> Strings(std::string_view key);
  bool Has(std::string_view key) const { return node_.Has(key); }
  config::Node node(std::string_view key) const { return node_.Get(key); }
  void Fail(const Status& status);
  void Fail(std::string_view key, std::string_view message) { Fail(node_.Get(key).Error(message)); }
  // All errors, unknown keys included, joined by newlines, or OK. Call last.
  Status Finish();
  // The errors so far, without a look for unknown keys.
  Status Collected() const;

 private:
  config::Node node_;
  std::vector<std::string> errors_;
};

// What a factory may use. Borrowed things outlive the plugin.
class PluginEnv {
 public:
  virtual ~PluginEnv() = default;
  // "DataType/<this plugin>": this plugin will fill it.
  virtual DataKey Produce(std::string_view data_type) = 0;
  // The key to read. `producer` "" = the data type's default producer, which is created when nobody
  // has configured it (required), or left out (not required).
  virtual DataKey Consume(std::string_view data_type, std::string_view producer, bool required) = 0;
  // A named number of each endpoint that this plugin, an extractor, fills. The id stays
  // kNoAttribute while nobody reads the attribute, and is fixed once the graph is built. `own` is
  // given for the gauges that have one by nature.
  virtual const AttributeId* ProduceAttribute(std::string_view name,
                                              AttributeId own = kNoAttribute);
  // The id under which to read it. `producer` is a plugin's name, "" = the only one that fills such
  // an attribute. NOT_FOUND names what there is.
  virtual StatusOr<AttributeId> ConsumeAttribute(std::string_view name, std::string_view producer);
  // Another plugin by name, built first; a default producer is created when it is not configured.
  // An error for unknown names and cycles.
  virtual StatusOr<Plugin*> Dependency(std::string_view name) = 0;
  // A line for the start-up log: something in the parameters has no effect here.
  virtual void Warn(std::string message) = 0;

  const Clock* clock = nullptr;
  MetricsRegistry* metrics = nullptr;
  std::shared_ptr<InFlightLedger> ledger;  // the same through all reloads; null = none
  Logger logger;
  std::string pool_namespace = "default";
  Duration refresh_interval = std::chrono::milliseconds(50);  // --refresh-metrics-interval
  std::shared_ptr<class Fetch> fetch;                         // null where nothing can be fetched
};

struct PluginArgs {
  std::string name, type;
  config::Node parameters;  // null when the configuration has none
  PluginEnv& env;
};

enum class Stability { kStable, kBeta, kAlpha, kDeprecated };

struct ParamHelp {
  std::string name, fallback, help;
};

using PluginFactory = std::function<StatusOr<std::unique_ptr<Plugin>>(PluginArgs& args)>;

struct PluginDescriptor {
  std::string type;
  std::string kind;  // "filter", "scorer" …; for docs/plugins.md
  Stability stability = Stability::kBeta;
  std::string help;
  std::vector<ParamHelp> params = {};
  PluginFactory make;
};

using PluginRegistry = Registry<PluginDescriptor>;

// Registers `descriptor` under its own type name.
inline Status AddPlugin(PluginRegistry& registry, PluginDescriptor descriptor) {
  std::string type = descriptor.type;
  return registry.Register(type, std::move(descriptor));
}

// All plugins of this library (plugins/builtin.cc).
PluginRegistry BuiltinPlugins();
// docs/plugins.md, from the descriptors.
std::string PluginsMarkdown(const PluginRegistry& registry);

}  // namespace llmd::sched
