#include "llmd/sched/config_loader.h"

#include <algorithm>
#include <cmath>

#include "config/flow_loader.h"
#include "config/graph_builder.h"
#include "config/graph_doubts.h"

namespace llmd::sched {
namespace {

constexpr std::string_view kDefaultYaml = R"(apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: queue-scorer
- type: kv-cache-utilization-scorer
- type: prefix-cache-scorer
- type: approx-prefix-cache-producer
- type: token-producer
schedulingProfiles:
- name: default
  plugins:
  - {pluginRef: queue-scorer, weight: 2}
  - {pluginRef: kv-cache-utilization-scorer, weight: 2}
  - {pluginRef: prefix-cache-scorer, weight: 3}
)";

std::string Ref(GraphBuilder& b, const config::Node& node) {
  const StatusOr<std::string> name = node.Get("pluginRef").String();
  if (!name.ok()) b.Error(node, "expected a pluginRef");
  return name.value_or("");
}

void ReadHead(GraphBuilder& b, const config::Node& root) {
  const std::string version = root.Get("apiVersion").String().value_or("");
  if (version == "inference.networking.x-k8s.io/v1alpha1") {
    b.Warn("apiVersion " + version + " is deprecated; use llm-d.ai/v1alpha1");
  } else if (version != "llm-d.ai/v1alpha1") {
    b.Error(root.Get("apiVersion"), "expected llm-d.ai/v1alpha1, got '" + version + "'");
  }
  const std::string kind = root.Get("kind").String().value_or("");
  if (kind != "EndpointPickerConfig")
    b.Error(root.Get("kind"), "expected EndpointPickerConfig, got '" + kind + "'");
}

// Gates: flowControl, and haPopulateNonLeaderDatastore, which only matters with leader election.
void ReadGate(GraphBuilder& b, const config::Node& item) {
  StatusOr<std::string> text = item.String();
  if (!text.ok()) return b.Error(text.status());
  std::string gate = *std::move(text);
  bool on = true;
  if (const size_t eq = gate.find('='); eq != std::string::npos) {
    const std::string value = gate.substr(eq + 1);
    if (value != "true" && value != "false")
      b.Error(item, "expected true or false after '=', got '" + value + "'");
    on = value == "true";
    gate.resize(eq);
  }
  if (gate == "flowControl") {
    b.graph().flow.enabled = on;
  } else if (gate == "haPopulateNonLeaderDatastore") {
    b.Warn("feature gate haPopulateNonLeaderDatastore has no effect without leader election");
  } else {
    b.Error(item, "unknown feature gate '" + gate +
                      "'; known: flowControl, haPopulateNonLeaderDatastore");
  }
}

void AddToProfile(GraphBuilder& b, Profile& profile, Plugin* plugin, double weight,
                  const config::Node& where) {
  bool used = false;
  if (auto* filter = dynamic_cast<Filter*>(plugin)) {
    profile.filters.push_back(b.WithTimer(filter, "Filter"));
    used = true;
  }
  if (auto* scorer = dynamic_cast<Scorer*>(plugin)) {
    WeightedScorer weighted;
    static_cast<Timed<Scorer>&>(weighted) = b.WithTimer(scorer, "Score");
    weighted.weight = weight;
    profile.scorers.push_back(weighted);
    used = true;
  }
  if (auto* picker = dynamic_cast<Picker*>(plugin)) {
    if (profile.picker.plugin)
      b.Error(where, "profile '" + profile.name + "' has more than one picker");
    profile.picker = b.WithTimer(picker, "Pick");
    used = true;
  }
  if (!used && where.line() > 0) {
    b.Error(where, "plugin '" + plugin->name() + "' is no filter, scorer or picker");
  }
}

void ReadProfile(GraphBuilder& b, const config::Node& node) {
  Profile profile;
  profile.name = node.Get("name").String().value_or("");
  if (profile.name.empty()) b.Error(node, "expected a profile name");
  for (const Profile& other : b.graph().profiles) {
    if (other.name == profile.name)
      b.Error(node, "another profile is already called '" + profile.name + "'");
  }
  for (const config::Node& item : b.ListOf(node.Get("plugins"))) {
    const std::string name = Ref(b, item);
    double weight = 1;
    if (const config::Node w = item.Get("weight"); !w.IsNull()) {
      const StatusOr<double> value = w.Double();
      if (!value.ok()) b.Error(value.status());
      weight = value.value_or(1);
      if (!(weight >= 0 && std::isfinite(weight)))
        b.Error(w, "expected a finite weight that is not negative");
    }
    b.CheckMap(item);
    Plugin* plugin = name.empty() ? nullptr : b.Find(item.Get("pluginRef"), name);
    if (!plugin) continue;
    if (item.Has("weight") && !dynamic_cast<Scorer*>(plugin)) {
      b.Warn("profile '" + profile.name + "': the weight of '" + name +
             "' has no effect, it is no scorer");
    }
    AddToProfile(b, profile, plugin, weight, item);
  }
  b.CheckMap(node);
  b.graph().profiles.push_back(std::move(profile));
}

void CompleteProfiles(GraphBuilder& b) {
  Graph& graph = b.graph();
  if (graph.profiles.empty()) {
    Profile profile;
    profile.name = "default";
    for (size_t i = 0; i < graph.plugins.size(); ++i) {
      Plugin* plugin = graph.plugins[i].get();
      if (!dynamic_cast<SaturationDetector*>(plugin))
        AddToProfile(b, profile, plugin, 1, config::Node());
    }
    graph.profiles.push_back(std::move(profile));
  }
  for (Profile& profile : graph.profiles) {
    if (profile.picker.plugin) continue;
    std::vector<Picker*> pickers = b.All<Picker>();
    if (pickers.empty()) pickers.push_back(dynamic_cast<Picker*>(b.Create("max-score-picker", "")));
    if (pickers[0]) profile.picker = b.WithTimer(pickers[0], "Pick");
  }
}

void CompleteHandler(GraphBuilder& b, const config::Node& root) {
  Graph& graph = b.graph();
  std::vector<ProfileHandler*> handlers = b.All<ProfileHandler>();
  if (handlers.size() > 1) {
    return b.Error(root.Get("plugins"), "more than one profile handler: '" + handlers[0]->name() +
                                            "' and '" + handlers[1]->name() + "'");
  }
  if (handlers.empty() && graph.profiles.size() > 1) {
    return b.Error(root.Get("schedulingProfiles"),
                   "several profiles need a profile handler among the plugins");
  }
  if (handlers.empty())
    handlers.push_back(dynamic_cast<ProfileHandler*>(b.Create("single-profile-handler", "")));
  graph.handler = handlers[0];
  if (!graph.handler) return;
  if (graph.handler->type() == "single-profile-handler" && graph.profiles.size() > 1) {
    b.Error(root.Get("schedulingProfiles"), "single-profile-handler takes one profile, got " +
                                                std::to_string(graph.profiles.size()));
  }
  for (const std::string& name : graph.handler->Profiles()) {
    const bool known = std::any_of(graph.profiles.begin(), graph.profiles.end(),
                                   [&](const Profile& p) { return p.name == name; });
    if (!known) {
      b.Error(root.Get("schedulingProfiles"),
              "handler '" + graph.handler->name() + "' needs a profile called '" + name + "'");
    }
  }
}

// What hangs on it must follow endpoints: pages never come.
void ReadNotificationSource(GraphBuilder& b, const config::Node& item) {
  for (const config::Node& e : b.ListOf(item.Get("extractors"))) {
    const std::string name = Ref(b, e);
    Plugin* plugin = b.Find(e.Get("pluginRef"), name);
    if (plugin && !dynamic_cast<EndpointExtractor*>(plugin) &&
        !dynamic_cast<EndpointObserver*>(plugin)) {
      b.Error(e.Get("pluginRef"), "plugin '" + name + "' follows no endpoints");
    }
    b.CheckMap(e);
  }
  b.CheckMap(item);
}

void ReadSource(GraphBuilder& b, const config::Node& item) {
  const std::string name = Ref(b, item);
  Plugin* plugin = b.Find(item.Get("pluginRef"), name);
  if (dynamic_cast<NotificationSource*>(plugin)) return ReadNotificationSource(b, item);
  SourceBinding binding;
  binding.source = dynamic_cast<Source*>(plugin);
  if (plugin && !binding.source)
    b.Error(item.Get("pluginRef"), "plugin '" + name + "' is no data source");
  for (const config::Node& e : b.ListOf(item.Get("extractors"))) {
    if (auto* x = b.FindAs<Extractor>(e.Get("pluginRef"), Ref(b, e), "extractor of pages"))
      binding.extractors.push_back(x);
    b.CheckMap(e);
  }
  if (item.Get("extractors").Items().empty()) b.Error(item, "expected at least one extractor");
  b.CheckMap(item);
  if (binding.source) b.graph().sources.push_back(std::move(binding));
}

// The metrics source with the core extractor, configured or new.
void InjectMetrics(GraphBuilder& b) {
  SourceBinding binding;
  for (Source* source : b.All<Source>()) {
    if (source->type() == "metrics-data-source" && !binding.source) binding.source = source;
  }
  if (!binding.source) binding.source = dynamic_cast<Source*>(b.Create("metrics-data-source", ""));
  for (Extractor* extractor : b.All<Extractor>()) {
    if (extractor->reads_gauges()) binding.extractors.push_back(extractor);
  }
  if (binding.extractors.empty())
    binding.extractors.push_back(dynamic_cast<Extractor*>(b.Create("core-metrics-extractor", "")));
  if (binding.source && binding.extractors[0]) b.graph().sources.push_back(std::move(binding));
}

void ReadDataLayer(GraphBuilder& b, const config::Node& root) {
  const config::Node layer = root.Get("dataLayer");
  const config::Node inject = layer.Get("injectDefaults");
  const StatusOr<bool> defaults = inject.IsNull() ? StatusOr<bool>(true) : inject.Bool();
  if (!defaults.ok()) b.Error(defaults.status());
  for (const config::Node& item : b.ListOf(layer.Get("sources"))) ReadSource(b, item);
  if (const config::Node d = layer.Get("discovery"); !d.IsNull()) {
    b.graph().discovery = b.FindAs<Discovery>(d.Get("pluginRef"), Ref(b, d), "discovery");
    b.CheckMap(d);
  }
  for (const char* key :
       {"peerDiscovery", "crossReplicaSyncerPluginRef", "crossReplicaSyncInterval"}) {
    if (layer.Has(key)) {
      b.Error(layer.Get(key),
              "no plugin shares state between replicas (the field's picker has none either): leave "
              "this key out");
    }
  }
  b.CheckMap(layer);
  if (b.graph().sources.empty() && defaults.value_or(true)) InjectMetrics(b);
}

void ReadParsers(GraphBuilder& b, const config::Node& root) {
  const config::Node handler = root.Get("requestHandler");
  std::vector<config::Node> items = b.ListOf(handler.Get("parsers"));
  if (const config::Node old = root.Get("parser"); !old.IsNull()) {
    b.Warn("the top-level key parser is deprecated; use requestHandler.parsers");
    if (!items.empty()) b.Error(old, "requestHandler.parsers says it already");
    items.push_back(old);
  }
  for (const config::Node& item : items) {
    if (auto* parser = b.FindAs<Parser>(item.Get("pluginRef"), Ref(b, item), "parser")) {
      b.graph().parsers.push_back(parser);
    }
    b.CheckMap(item);
  }
  b.CheckMap(handler);
  if (!items.empty()) return;
  for (const char* type :
       {"openai-parser", "anthropic-parser", "vllmhttp-parser", "passthrough-parser"}) {
    if (auto* parser = dynamic_cast<Parser*>(b.Find(config::Node(), type, true)))
      b.graph().parsers.push_back(parser);
  }
}

}  // namespace

std::string_view DefaultConfigYaml() {
  return kDefaultYaml;
}

StatusOr<std::shared_ptr<Graph>> LoadGraph(std::string_view yaml, const LoadOptions& options) {
  StatusOr<config::Node> root = config::Parse(yaml.empty() ? kDefaultYaml : yaml);
  const auto with_name = [&](const Status& status) {
    return options.source_name.empty() ? status : status.WithContext(options.source_name);
  };
  if (!root.ok()) return with_name(root.status());
  if (!root->IsMap()) return with_name(root->Error("expected an EndpointPickerConfig"));
  const PluginRegistry builtin = options.registry ? PluginRegistry() : BuiltinPlugins();
  GraphBuilder b(options.registry ? *options.registry : builtin, options);
  ReadHead(b, *root);
  for (const config::Node& item : b.ListOf(root->Get("featureGates"))) ReadGate(b, item);
  for (const config::Node& item : b.ListOf(root->Get("plugins"))) b.Declare(item);
  b.BuildAll();
  for (const config::Node& item : b.ListOf(root->Get("schedulingProfiles"))) ReadProfile(b, item);
  CompleteProfiles(b);
  CompleteHandler(b, *root);
  ReadDataLayer(b, *root);
  ReadParsers(b, *root);
  b.graph().IndexParsers();
  ReadFlowControl(b, *root);
  b.CheckMap(*root);
  StatusOr<std::shared_ptr<Graph>> graph = b.Finish();
  if (!graph.ok()) return with_name(graph.status());
  for (std::string& doubt : DoubtsOf(**graph, options))
    (*graph)->warnings.push_back(std::move(doubt));
  return graph;
}

std::vector<std::string> GraphWarnings(const Graph& graph) {
  return graph.warnings;
}

json::Value DescribeGraph(const Graph& graph) {
  json::Array plugins, profiles, producers, parsers, sources;
  for (const auto& p : graph.plugins)
    plugins.push_back(json::Object{{"name", p->name()}, {"type", p->type()}});
  for (const Profile& p : graph.profiles) {
    json::Array filters, scorers;
    for (const auto& f : p.filters) filters.emplace_back(f.plugin->name());
    for (const auto& s : p.scorers) {
      scorers.push_back(json::Object{{"name", s.plugin->name()}, {"weight", s.weight}});
    }
    profiles.push_back(json::Object{{"name", p.name},
                                    {"filters", std::move(filters)},
                                    {"scorers", std::move(scorers)},
                                    {"picker", p.picker.plugin->name()}});
  }
  for (const auto& p : graph.producers) producers.emplace_back(p.plugin->name());
  for (const Parser* p : graph.parsers) parsers.emplace_back(p->name());
  for (const SourceBinding& s : graph.sources) sources.emplace_back(s.source->name());
  return json::Object{
      {"plugins", std::move(plugins)},
      {"profiles", std::move(profiles)},
      {"profileHandler", graph.handler->name()},
      {"producers", std::move(producers)},
      {"parsers", std::move(parsers)},
      {"sources", std::move(sources)},
      {"discovery", graph.discovery ? json::Value(graph.discovery->name()) : nullptr},
      {"saturationDetector", graph.saturation->name()},
      {"flowControl", graph.flow.enabled}};
}

Status Graph::SetAttributes(const EndpointState& e, EndpointMetrics& metrics) const {
  for (const auto& [key, value] : e.attributes) {
    bool known = false;
    for (const EndpointAttribute& a : attributes) {
      if (a.own != kNoAttribute || (key != a.name && key != a.name + "/" + a.producer)) continue;
      metrics.SetAttribute(a.id, value);
      known = true;
    }
    if (!known)
      return InvalidArgument("endpoint '" + e.info.FullName() + "': no extractor of this " +
                             "configuration fills an attribute '" + key + "'");
  }
  return OkStatus();
}

bool Graph::ReadsGauges() const {
  return std::any_of(sources.begin(), sources.end(),
                     [](const SourceBinding& b) { return b.gauges; });
}

void Graph::IndexParsers() {
  for (Parser* parser : parsers) {
    const std::vector<std::string_view> suffixes = parser->PathSuffixes();
    if (suffixes.empty()) {
      any_path = parser;
      return;
    }
    for (const std::string_view suffix : suffixes) parser_paths.emplace_back(suffix, parser);
  }
}

Parser* Graph::FindParser(std::string_view path) const {
  Parser* best = any_path;
  size_t longest = 0;
  for (const auto& [suffix, parser] : parser_paths) {
    if (suffix.size() <= longest || !path.ends_with(suffix)) continue;
    longest = suffix.size();
    best = parser;
  }
  return best;
}

}  // namespace llmd::sched
