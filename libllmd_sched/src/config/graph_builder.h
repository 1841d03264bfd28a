// Turns declarations of plugins into a Graph: builds them with their dependencies, adds the
// defaults that data keys and profiles need, orders producers. Collects errors instead of stopping
// at the first.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "config/graph.h"
#include "llmd/sched/config_loader.h"

namespace llmd::sched {

class GraphBuilder {
 public:
  GraphBuilder(const PluginRegistry& registry, const LoadOptions& options);

  Graph& graph() { return *graph_; }
  void Error(const Status& status) { errors_.push_back(status.message()); }
  void Error(const config::Node& where, std::string_view message) { Error(where.Error(message)); }
  // The items of a list; an error at the node when it is anything else, absent apart.
  std::vector<config::Node> ListOf(const config::Node& node);
  // Refuses keys that nobody has asked for, and what is no map, absent apart.
  void CheckMap(const config::Node& node);
  void Warn(std::string message) { graph_->warnings.push_back(std::move(message)); }

  // Adds `plugins[i]`; its name and type are read, its parameters when it is built.
  void Declare(const config::Node& node);
  // Builds all declared plugins, each after those it depends on.
  void BuildAll();
  // The plugin of that name; declares and builds a parameterless one of type `name` when absent and
  // allowed. Null with an error at `where` otherwise.
  Plugin* Find(const config::Node& where, const std::string& name, bool may_create = false);
  // A new plugin of that type under that name.
  Plugin* Create(const std::string& type, const std::string& why);
  template <typename T>
  T* FindAs(const config::Node& where, const std::string& name, const char* kind,
            bool may_create = false) {
    Plugin* plugin = Find(where, name, may_create);
    T* out = dynamic_cast<T*>(plugin);
    if (plugin && !out) Error(where, "plugin '" + name + "' is no " + kind);
    return out;
  }
  template <typename T>
  std::vector<T*> All() const {
    std::vector<T*> out;
    for (const auto& plugin : graph_->plugins) {
      if (T* t = dynamic_cast<T*>(plugin.get())) out.push_back(t);
    }
    return out;
  }
  template <typename T>
  Timed<T> WithTimer(T* plugin, const char* extension_point);

  // Creates missing default producers, orders all, fills the graph's lists of hooks; then the graph
  // or all errors.
  StatusOr<std::shared_ptr<Graph>> Finish();

 private:
  class Env;
  struct Declaration {
    std::string name, type;
    config::Node node, parameters;
    enum { kNew, kBuilding, kBuilt, kFailed } state = kNew;
    Plugin* plugin = nullptr;
    PluginOrigin origin;
  };
  struct Use {
    DataKey key;
    size_t declaration;
    bool required;
  };
  Plugin* Build(size_t declaration);
  StatusOr<std::shared_ptr<Plugin>> Make(size_t declaration, const PluginDescriptor& descriptor);
  // The previous graph's plugin for the declaration when nothing it was made from differs, else
  // null.
  std::shared_ptr<Plugin> Kept(size_t declaration);
  DataKey Produce(size_t declaration, const std::string& data_type, const std::string& name);
  DataKey Consume(size_t declaration, const std::string& data_type, const std::string& producer,
                  bool required);
  StatusOr<Plugin*> Dependency(const std::string& name);
  std::string NobodyCalled(const std::string& name) const;
  std::optional<size_t> IndexOf(const std::string& name) const;
  StatusOr<AttributeId> ReadAttribute(const std::string& name, const std::string& producer);
  void BindAttributes();
  DataKey KeyOf(const std::string& data_type, const std::string& producer);
  void CreateDefaultProducers();
  // Who produces that data type under other keys, for a warning; "" = nobody.
  std::string OthersOf(DataKey key) const;
  void OrderProducers();
  void FreeKeys();
  void Name();
  DataKey PrefixMatchOfScorers() const;

  const PluginRegistry& registry_;
  const LoadOptions& options_;
  MetricsRegistry* metrics_;
  const Clock* clock_;
  std::shared_ptr<Graph> graph_;
  std::vector<Declaration> declared_;
  std::vector<std::pair<std::string, std::string>> keys_;  // by DataKey: type, producer; "" = free
  std::map<DataKey, size_t> produced_by_;
  std::vector<Use> uses_;
  std::vector<std::string> errors_;
};

template <typename T>
Timed<T> GraphBuilder::WithTimer(T* plugin, const char* extension_point) {
  if (graph_->own_metrics) return {plugin, nullptr};  // nobody would read the durations
  static const std::vector<double> kFast = {.0001, .0002, .0005, .001, .002,
                                            .005,  .01,   .02,   .05,  .1};
  return {plugin, &metrics_->AddHistogram("llm_d_epp_plugin_duration_seconds",
                                          "Time spent in a plugin", kFast,
                                          {{"extension_point", extension_point},
                                           {"plugin_type", plugin->type()},
                                           {"plugin_name", plugin->name()}})};
}

}  // namespace llmd::sched
