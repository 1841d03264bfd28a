#include "config/graph_builder.h"

#include <algorithm>
#include <set>

#include "llmd/nearest.h"

namespace llmd::sched {
namespace {

// The producer created for a data type that is consumed and produced by nobody
// (docs/reference/scheduling.md, "Data").
const std::map<std::string, std::string, std::less<>>& DefaultProducers() {
  static const std::map<std::string, std::string, std::less<>> kMap = {
      {"PrefixCacheMatchInfo", "approx-prefix-cache-producer"},
      {"InFlightLoad", "inflight-load-producer"},
      {"UncachedRequestTokens", "inflight-load-producer"},
      {"TokenizedPrompt", "token-producer"},
      {"SessionID", "session-id-producer"},
      {"LatencyPredictionInfo", "predicted-latency-producer"},
      {"EncoderCacheMatchInfo", "mm-embeddings-cache-producer"},
  };
  return kMap;
}

// The parameter by which a plugin chooses among the producers of a data type.
const std::map<std::string, std::string, std::less<>>& ProducerParameters() {
  static const std::map<std::string, std::string, std::less<>> kMap = {
      {"PrefixCacheMatchInfo", "prefixMatchInfoProducerName"},
      {"InFlightLoad", "inFlightLoadProducerName"},
      {"LatencyPredictionInfo", "latencyPredictionInfoProducerName"},
  };
  return kMap;
}

constexpr std::string_view kCoreExtractor = "core-metrics-extractor";

bool IsDefaultProducer(std::string_view type) {
  return std::any_of(DefaultProducers().begin(), DefaultProducers().end(),
                     [&](const auto& entry) { return entry.second == type; });
}

std::string Reads(const std::string& consumer, const std::string& data_type) {
  return "'" + consumer + "' reads " + data_type;
}

}  // namespace

class GraphBuilder::Env final : public PluginEnv {
 public:
  Env(GraphBuilder& builder, size_t declaration) : builder_(builder), declaration_(declaration) {
    clock = builder.clock_;
    metrics = builder.metrics_;
    ledger = builder.graph_->ledger;
    logger = builder.options_.logger;
    pool_namespace = builder.options_.pool_namespace;
    fetch = builder.options_.fetch;
    refresh_interval = builder.options_.refresh_interval;
  }
  const AttributeId* ProduceAttribute(std::string_view name, AttributeId own) override {
    std::deque<EndpointAttribute>& all = builder_.graph_->attributes;
    Origin().fills_attributes = true;
    all.push_back({std::string(name), builder_.declared_[declaration_].name, kNoAttribute, own});
    return &all.back().id;
  }
  StatusOr<AttributeId> ConsumeAttribute(std::string_view name,
                                         std::string_view producer) override {
    const auto id = builder_.ReadAttribute(std::string(name), std::string(producer));
    if (id.ok()) Origin().attributes.push_back({std::string(name), std::string(producer), *id});
    return id;
  }
  DataKey Produce(std::string_view data_type) override {
    return builder_.Produce(declaration_, std::string(data_type),
                            builder_.declared_[declaration_].name);
  }
  DataKey Consume(std::string_view data_type, std::string_view producer, bool required) override {
    std::string name(producer);
    if (name.empty()) {
      const auto it = DefaultProducers().find(data_type);
      if (it != DefaultProducers().end()) name = it->second;
    }
    return builder_.Consume(declaration_, std::string(data_type), name, required);
  }
  StatusOr<Plugin*> Dependency(std::string_view name) override {
    StatusOr<Plugin*> found = builder_.Dependency(std::string(name));
    if (found.ok()) Origin().dependencies.emplace_back(name, *found);
    return found;
  }
  void Warn(std::string message) override {
    Origin().warnings.push_back("plugin '" + builder_.declared_[declaration_].name +
                                "': " + message);
    builder_.Warn(Origin().warnings.back());
  }

 private:
  PluginOrigin& Origin() { return builder_.declared_[declaration_].origin; }
  GraphBuilder& builder_;
  const size_t declaration_;
};

GraphBuilder::GraphBuilder(const PluginRegistry& registry, const LoadOptions& options)
    : registry_(registry),
      options_(options),
      metrics_(options.metrics),
      clock_(options.clock ? options.clock : &SystemClock()),
      graph_(std::make_shared<Graph>()) {
  graph_->clock = clock_;
  graph_->ledger = options.previous ? options.previous->ledger : std::make_shared<InFlightLedger>();
  // Keys keep their numbers, so that plugins that stay find their data under them.
  if (options.previous) {
    keys_ = options.previous->data_keys;
    graph_->next_attribute = options.previous->next_attribute;
  }
  if (metrics_) return;
  if (options.previous) graph_->own_metrics = options.previous->own_metrics;
  if (!graph_->own_metrics) graph_->own_metrics = std::make_shared<MetricsRegistry>();
  metrics_ = graph_->own_metrics.get();
}

std::vector<config::Node> GraphBuilder::ListOf(const config::Node& node) {
  if (!node.IsNull() && !node.IsList()) Error(node, "expected a list");
  return node.Items();
}

void GraphBuilder::CheckMap(const config::Node& node) {
  if (node.IsNull()) return;
  if (!node.IsMap()) return Error(node, "expected a map");
  if (Status status = node.RejectUnknown(false); !status.ok()) Error(status);
}

void GraphBuilder::Declare(const config::Node& node) {
  if (!node.IsMap()) return Error(node, "expected a plugin {name, type, parameters}");
  Params params(node);
  Declaration d;
  d.node = node;
  d.type = params.String("type", "");
  d.name = params.String("name", d.type);
  d.parameters = node.Get("parameters");
  if (d.type.empty()) params.Fail("type", "expected a plugin type");
  if (!d.name.empty() && IndexOf(d.name))
    params.Fail(node.Error("another plugin is already called '" + d.name + "'"));
  if (Status status = node.RejectUnknown(false); !status.ok()) params.Fail(status);
  if (Status status = params.Collected(); !status.ok()) Error(status);
  declared_.push_back(std::move(d));
}

void GraphBuilder::BuildAll() {
  for (size_t i = 0; i < declared_.size(); ++i) Build(i);
}

std::optional<size_t> GraphBuilder::IndexOf(const std::string& name) const {
  for (size_t i = 0; i < declared_.size(); ++i) {
    if (declared_[i].name == name) return i;
  }
  return std::nullopt;
}

Plugin* GraphBuilder::Build(size_t i) {
  if (declared_[i].state != Declaration::kNew) return declared_[i].plugin;
  declared_[i].state = Declaration::kBuilding;
  const Declaration d = declared_[i];  // a copy: building may declare more
  declared_[i].state = Declaration::kFailed;
  if (d.type.empty()) return nullptr;
  const StatusOr<const PluginDescriptor*> descriptor = registry_.Find(d.type);
  if (!descriptor.ok()) {
    Error(d.node,
          "unknown plugin type '" + d.type + "'" +
              (d.type.starts_with("multicluster-") ? "; multicluster types are not part of llmd"
                                                   : DidYouMean(d.type, registry_.Types())) +
              "; `llmd plugins` lists them all");
    return nullptr;
  }
  if ((*descriptor)->stability == Stability::kAlpha && !options_.allow_experimental) {
    Error(d.node, "plugin type '" + d.type + "' is Alpha: it needs --allow-experimental-plugins");
    return nullptr;
  }
  if ((*descriptor)->stability == Stability::kDeprecated)
    Warn("plugin type '" + d.type + "' is deprecated");
  declared_[i].state = Declaration::kBuilding;
  std::shared_ptr<Plugin> plugin = Kept(i);
  if (!plugin) {
    StatusOr<std::shared_ptr<Plugin>> made = Make(i, **descriptor);
    if (!made.ok()) Error(made.status());
    plugin = made.ok() ? std::move(*made) : nullptr;
  }
  declared_[i].state = plugin ? Declaration::kBuilt : Declaration::kFailed;
  declared_[i].plugin = plugin.get();
  if (!plugin) return nullptr;
  graph_->plugins.push_back(std::move(plugin));
  graph_->origins.push_back(declared_[i].origin);
  return declared_[i].plugin;
}

StatusOr<std::shared_ptr<Plugin>> GraphBuilder::Make(size_t i, const PluginDescriptor& descriptor) {
  const Declaration d = declared_[i];  // a copy: making may declare more
  declared_[i].origin = {.parameters = d.parameters};
  Env env(*this, i);
  PluginArgs args{d.name, d.type, d.parameters, env};
  LLMD_ASSIGN_OR_RETURN(std::unique_ptr<Plugin> made, descriptor.make(args));
  made->name_ = d.name;
  made->type_ = d.type;
  return std::shared_ptr<Plugin>(std::move(made));
}

StatusOr<Plugin*> GraphBuilder::Dependency(const std::string& name) {
  std::optional<size_t> i = IndexOf(name);
  if (!i && IsDefaultProducer(name)) {
    Create(name, "it is needed by another plugin");
    i = IndexOf(name);
  }
  if (!i) return NotFound(NobodyCalled(name));
  if (declared_[*i].state == Declaration::kBuilding)
    return InvalidArgument("plugin '" + name + "' depends on itself");
  if (Plugin* plugin = Build(*i)) return plugin;
  return InvalidArgument("plugin '" + name + "' could not be built");
}

Plugin* GraphBuilder::Find(const config::Node& where, const std::string& name, bool may_create) {
  if (const std::optional<size_t> i = IndexOf(name)) return Build(*i);
  if (may_create) return Create(name, "");
  const bool is_type = registry_.Find(name).ok();
  Error(where, NobodyCalled(name) + (is_type ? "; to use that type list it under plugins" : ""));
  return nullptr;
}

std::string GraphBuilder::NobodyCalled(const std::string& name) const {
  std::vector<std::string> known;
  known.reserve(declared_.size());
  for (const Declaration& d : declared_) known.push_back(d.name);
  return "no plugin is called '" + name + "'" + DidYouMean(name, known);
}

Plugin* GraphBuilder::Create(const std::string& type, const std::string& why) {
  Declaration d;
  d.name = d.type = type;
  declared_.push_back(std::move(d));
  if (!why.empty()) Warn("plugin '" + type + "' was added: " + why);
  return Build(declared_.size() - 1);
}

// Extractors read no attributes, so they can all be built before the first reader.
StatusOr<AttributeId> GraphBuilder::ReadAttribute(const std::string& name,
                                                  const std::string& producer) {
  for (size_t i = 0; i < declared_.size(); ++i) {
    const auto descriptor = registry_.Find(declared_[i].type);
    if (descriptor.ok() && (*descriptor)->kind == "extractor") Build(i);
  }
  if (producer == kCoreExtractor && !IndexOf(producer)) Create(producer, "");
  EndpointAttribute* found = nullptr;
  std::string known;
  for (EndpointAttribute& a : graph_->attributes) {
    if (!producer.empty() && a.producer != producer) continue;
    known += (known.empty() ? "" : ", ") + a.name;
    if (a.name != name) continue;
    if (found != nullptr && found->producer != a.producer)
      return InvalidArgument("'" + found->producer + "' and '" + a.producer +
                             "' both fill the attribute '" + name + "'; name a producer");
    found = &a;
  }
  if (found == nullptr) {
    return NotFound((producer.empty() ? "no extractor" : "'" + producer + "'") +
                    " fills an attribute '" + name +
                    "'; known: " + (known.empty() ? "none" : known));
  }
  if (found->id != kNoAttribute) return found->id;
  if (found->own != kNoAttribute) return found->id = found->own;
  if (options_.previous) {
    // Values under the old number are already with the endpoints.
    for (const EndpointAttribute& old : options_.previous->attributes) {
      if (old.name == name && old.producer == found->producer) found->id = old.id;
    }
  }
  if (found->id == kNoAttribute) found->id = graph_->next_attribute++;
  return found->id;
}

void GraphBuilder::BindAttributes() {
  for (SourceBinding& binding : graph_->sources) {
    for (const Extractor* extractor : binding.extractors) {
      binding.gauges = binding.gauges || extractor->reads_gauges();
      std::vector<AttributeId>& read = binding.attributes.emplace_back();
      for (const EndpointAttribute& a : graph_->attributes) {
        if (a.producer == extractor->name() && a.id >= kFirstAttribute) read.push_back(a.id);
      }
    }
  }
}

DataKey GraphBuilder::KeyOf(const std::string& data_type, const std::string& producer) {
  const std::pair<std::string, std::string> key(data_type, producer), free;
  auto it = std::find(keys_.begin(), keys_.end(), key);
  if (it == keys_.end()) it = std::find(keys_.begin(), keys_.end(), free);
  if (it == keys_.end()) it = keys_.insert(it, key);
  *it = key;
  return static_cast<DataKey>(it - keys_.begin());
}

DataKey GraphBuilder::Produce(size_t i, const std::string& data_type, const std::string& name) {
  const DataKey key = KeyOf(data_type, name);
  produced_by_[key] = i;
  declared_[i].origin.produces.push_back({data_type, name, key});
  return key;
}

DataKey GraphBuilder::Consume(size_t i, const std::string& data_type, const std::string& producer,
                              bool required) {
  const DataKey key = KeyOf(data_type, producer);
  uses_.push_back({key, i, required});
  declared_[i].origin.consumes.push_back({data_type, producer, key, required});
  return key;
}

std::string GraphBuilder::OthersOf(DataKey key) const {
  std::string names;
  for (const auto& [other, declaration] : produced_by_) {
    if (other != key && keys_[other].first == keys_[key].first)
      names += (names.empty() ? "'" : ", '") + keys_[other].second + "'";
  }
  if (names.empty()) return {};
  const auto parameter = ProducerParameters().find(keys_[key].first);
  return "; " + names + " produces it too and is not read" +
         (parameter == ProducerParameters().end()
              ? std::string()
              : ": " + parameter->second + " says whom to read");
}

void GraphBuilder::CreateDefaultProducers() {
  std::set<DataKey> told;
  // Creating one may add uses: the list grows while it is walked.
  for (size_t u = 0; u < uses_.size(); ++u) {
    const Use use = uses_[u];
    if (produced_by_.contains(use.key)) continue;
    const auto [data_type, producer] = keys_[use.key];
    const std::string reads = Reads(declared_[use.declaration].name, data_type);
    const auto fallback = DefaultProducers().find(data_type);
    const bool is_default = fallback != DefaultProducers().end() && fallback->second == producer;
    if (use.required && is_default && !IndexOf(producer)) {
      const std::string others = OthersOf(use.key);
      Create(producer, reads + (others.empty() ? " and nobody produces it"
                                               : ", by default of '" + producer + "'" + others));
    } else if (use.required) {
      Error(InvalidArgument("plugin " + reads + "/" + producer + ", which nobody produces"));
    }
  }
  for (const Use& use : uses_) {
    if (use.required || produced_by_.contains(use.key) || !told.insert(use.key).second) continue;
    Warn("plugin '" + declared_[use.declaration].name + "' goes without " + keys_[use.key].first +
         "/" + keys_[use.key].second + ": nobody produces it" + OthersOf(use.key));
  }
}

void GraphBuilder::OrderProducers() {
  std::vector<size_t> waiting;
  for (size_t i = 0; i < declared_.size(); ++i) {
    if (dynamic_cast<Producer*>(declared_[i].plugin)) waiting.push_back(i);
  }
  const auto ready = [&](size_t i) {
    return std::none_of(uses_.begin(), uses_.end(), [&](const Use& use) {
      if (use.declaration != i || !produced_by_.contains(use.key)) return false;
      const size_t by = produced_by_.at(use.key);
      return by != i && std::find(waiting.begin(), waiting.end(), by) != waiting.end();
    });
  };
  // The first in configured order whose inputs, optional ones too, are all there: the same order in
  // every run.
  while (!waiting.empty()) {
    const auto next = std::find_if(waiting.begin(), waiting.end(), ready);
    if (next == waiting.end()) {
      return Error(InvalidArgument("producers wait for each other, '" + declared_[waiting[0]].name +
                                   "' among them"));
    }
    TimedProducer producer;
    static_cast<Timed<Producer>&>(producer) =
        WithTimer(dynamic_cast<Producer*>(declared_[*next].plugin), "ProduceRequestData");
    producer.slow = dynamic_cast<SlowProducer*>(declared_[*next].plugin);
    graph_->slow |= producer.slow != nullptr;
    graph_->producers.push_back(producer);
    waiting.erase(next);
  }
}

void GraphBuilder::FreeKeys() {
  std::set<DataKey> used;
  for (const auto& [key, declaration] : produced_by_) used.insert(key);
  for (const Use& use : uses_) used.insert(use.key);
  for (size_t k = 0; k < keys_.size(); ++k) {
    if (!used.contains(static_cast<DataKey>(k))) keys_[k] = {};
  }
  while (!keys_.empty() && keys_.back().first.empty()) keys_.pop_back();
}

void GraphBuilder::Name() {
  auto names = std::make_shared<GraphNames>();
  for (const Profile& p : graph_->profiles) {
    GraphNames::Profile& out = names->profiles.emplace_back();
    out.name = p.name;
    out.picker = p.picker.plugin->name();
    for (const auto& f : p.filters) out.filters.push_back(f.plugin->name());
    for (const auto& s : p.scorers) out.scorers.push_back({s.plugin->name(), s.weight});
  }
  graph_->names = std::move(names);
}

DataKey GraphBuilder::PrefixMatchOfScorers() const {
  const auto is_match = [&](DataKey key) { return keys_[key].first == "PrefixCacheMatchInfo"; };
  for (const Use& use : uses_) {
    if (is_match(use.key) && dynamic_cast<Scorer*>(declared_[use.declaration].plugin))
      return use.key;
  }
  for (const auto& [key, producer] : produced_by_) {
    if (is_match(key)) return key;
  }
  return kNoKey;
}

StatusOr<std::shared_ptr<Graph>> GraphBuilder::Finish() {
  if (errors_.empty()) CreateDefaultProducers();
  if (errors_.empty()) OrderProducers();
  if (!errors_.empty()) {
    std::string all;
    for (const std::string& e : errors_) all += (all.empty() ? "" : "\n") + e;
    return InvalidArgument(std::move(all));
  }
  FreeKeys();
  Name();
  graph_->attribute_count = keys_.size();
  graph_->data_keys = keys_;
  BindAttributes();
  graph_->prefix_match = PrefixMatchOfScorers();
  graph_->request_headers = All<RequestHeaderHook>();
  graph_->admitters = All<Admitter>();
  graph_->pre_request = All<PreRequestHook>();
  graph_->response = All<ResponseHook>();
  graph_->observers = All<EndpointObserver>();
  for (const ResponseHook* hook : graph_->response)
    graph_->wants_response_body |= hook->wants_body();
  return graph_;
}

}  // namespace llmd::sched
