#include "llmd/sched/testing/plugin_under_test.h"

#include <limits>
#include <numeric>

#include "config/graph.h"
#include "latency/headroom.h"
#include "llmd/sched/testing/pool.h"

namespace llmd::sched::testing {
namespace {

// A profile entry only where the plugin can stand in one; the picker, handler, parsers and
// producers are completed.
std::string ConfigOf(const PluginRegistry& registry, std::string_view type,
                     std::string_view parameters, const std::vector<std::string>& beside) {
  const std::string name(type);
  const auto descriptor = registry.Find(type);
  std::string out =
      "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n- {type: " + name +
      ", parameters: " + std::string(parameters) + "}\n";
  for (const std::string& entry : beside) out += "- " + entry + "\n";
  bool in_profile = false;
  for (const char* kind : {"filter", "scorer", "picker"})
    in_profile |= descriptor.ok() && (*descriptor)->kind.find(kind) != std::string::npos;
  return out + "schedulingProfiles: [{name: default, plugins: [" +
         (in_profile ? "{pluginRef: " + name + "}" : "") + "]}]\n";
}

void Fill(Attribute& out, const Fact& fact, const Snapshot& snapshot) {
  out.total = fact.total;
  out.block_size = fact.block_size;
  out.exact = fact.exact;
  out.tokens = fact.tokens;
  out.bounds = {fact.tokens.size()};
  out.text = fact.text;
  const auto by_index = [&](const auto& by_name) {
    std::vector<double> values(snapshot.size(), 0);
    for (size_t i = 0; i < values.size(); ++i) {
      if (const auto it = by_name.find(snapshot.info(i).name); it != by_name.end())
        values[i] = it->second;
    }
    return values;
  };
  out.per_endpoint = by_index(fact.per_endpoint);
  out.second = by_index(fact.second);
}

// As predicted-latency-producer leaves it for a request that streams and has no SLO.
void FillLatency(Attribute& out) {
  out.latency.assign(out.per_endpoint.size(), {});
  for (size_t i = 0; i < out.latency.size(); ++i) {
    LatencyPrediction& p = out.latency[i];
    p.ttft_ms = out.per_endpoint[i];
    p.tpot_ms = out.second[i];
    latency::SetHeadroom({}, std::numeric_limits<double>::infinity(), true, p);
  }
}

std::vector<uint32_t> Chosen(const Scene& scene,
                             std::optional<std::span<const uint32_t>> candidates) {
  if (!candidates) return scene.all;
  return {candidates->begin(), candidates->end()};
}

template <typename Kind>
StatusOr<Kind*> As(Plugin& plugin, const char* kind) {
  if (auto* out = dynamic_cast<Kind*>(&plugin)) return out;
  return FailedPrecondition("plugin '" + plugin.type() + "' is no " + kind);
}

}  // namespace

PluginUnderTest::PluginUnderTest() : clock_(std::make_unique<FakeClock>()) {}
PluginUnderTest::~PluginUnderTest() = default;

StatusOr<std::unique_ptr<PluginUnderTest>> PluginUnderTest::Create(
    const PluginRegistry* registry, std::string_view type, std::string_view parameters,
    const std::vector<std::string>& beside) {
  const PluginRegistry builtin = registry ? PluginRegistry() : BuiltinPlugins();
  const PluginRegistry& known = registry ? *registry : builtin;
  std::unique_ptr<PluginUnderTest> out(new PluginUnderTest());
  LoadOptions options;
  options.registry = &known;
  options.clock = out->clock_.get();
  LLMD_ASSIGN_OR_RETURN(out->graph_, LoadGraph(ConfigOf(known, type, parameters, beside), options));
  for (const auto& plugin : out->graph_->plugins) {
    if (plugin->type() == type) out->plugin_ = plugin.get();
  }
  return out;
}

std::vector<std::string> PluginUnderTest::DataKeys() const {
  std::vector<std::string> out;
  for (const auto& [type, producer] : graph_->data_keys) out.push_back(type + "/" + producer);
  return out;
}

std::vector<std::string> PluginUnderTest::Warnings() const {
  return graph_->warnings;
}

StatusOr<std::unique_ptr<Scene>> PluginUnderTest::Set(const FakeRequest& request,
                                                      std::span<const EndpointState> endpoints,
                                                      uint64_t seed) const {
  auto scene = std::make_unique<Scene>();
  scene->spec = request.Spec();
  std::vector<EndpointState> filled(endpoints.begin(), endpoints.end());
  for (EndpointState& e : filled) LLMD_RETURN_IF_ERROR(graph_->SetAttributes(e, e.metrics));
  scene->snapshot = SnapshotOf(filled);
  scene->all.resize(endpoints.size());
  std::iota(scene->all.begin(), scene->all.end(), 0);
  RequestContext& context = scene->request;
  context.Reset(graph_->attribute_count);
  context.eligible = scene->all;
  context.id = 1;
  context.request_id = scene->spec.request_id;
  context.path = scene->spec.path;
  context.headers = &scene->spec.headers;
  context.body = scene->spec.body;
  context.priority = scene->spec.priority;
  context.received = clock_->Now();
  context.received_unix_nanos = clock_->UnixNanos();
  context.random = seed;
  Parser* parser = graph_->FindParser(context.path);
  if (parser == nullptr) return InvalidArgument("no parser takes the path '" + context.path + "'");
  LLMD_RETURN_IF_ERROR(parser->Parse(context));
  context.target_model = context.model;
  for (const auto& [type, fact] : request.facts()) {
    bool read = false;
    for (size_t key = 0; key < graph_->data_keys.size(); ++key) {
      if (graph_->data_keys[key].first != type) continue;
      Attribute& attribute = context.Put(static_cast<DataKey>(key));
      Fill(attribute, fact, scene->snapshot);
      if (type == "LatencyPredictionInfo") FillLatency(attribute);
      read = true;
    }
    if (!read) return InvalidArgument("plugin '" + plugin_->type() + "' does not read " + type);
  }
  return scene;
}

StatusOr<std::vector<double>> PluginUnderTest::Score(
    Scene& scene, std::optional<std::span<const uint32_t>> candidates) {
  LLMD_ASSIGN_OR_RETURN(Scorer * scorer, As<Scorer>(*plugin_, "scorer"));
  const std::vector<uint32_t> chosen = Chosen(scene, candidates);
  std::vector<double> scores(chosen.size(), std::numeric_limits<double>::quiet_NaN());
  scorer->Score(scene.request, scene.snapshot, chosen, scores);
  return scores;
}

StatusOr<std::vector<uint32_t>> PluginUnderTest::Keep(
    Scene& scene, std::optional<std::span<const uint32_t>> candidates) {
  LLMD_ASSIGN_OR_RETURN(Filter * filter, As<Filter>(*plugin_, "filter"));
  std::vector<uint32_t> chosen = Chosen(scene, candidates);
  filter->Keep(scene.request, scene.snapshot, chosen);
  return chosen;
}

StatusOr<Picks> PluginUnderTest::Pick(Scene& scene, std::span<const double> totals,
                                      std::optional<std::span<const uint32_t>> candidates) {
  LLMD_ASSIGN_OR_RETURN(Picker * picker, As<Picker>(*plugin_, "picker"));
  const std::vector<uint32_t> chosen = Chosen(scene, candidates);
  if (totals.size() != chosen.size()) {
    return InvalidArgument(std::to_string(totals.size()) + " totals for " +
                           std::to_string(chosen.size()) + " candidates");
  }
  Picks out;
  out.tied = picker->Pick(scene.request, scene.snapshot, chosen, totals, out.picked);
  return out;
}

StatusOr<std::vector<double>> PluginUnderTest::ScoreOf(const FakeRequest& request,
                                                       std::span<const EndpointState> endpoints) {
  LLMD_ASSIGN_OR_RETURN(const std::unique_ptr<Scene> scene, Set(request, endpoints));
  return Score(*scene);
}

StatusOr<std::vector<std::string>> PluginUnderTest::KeptOf(
    const FakeRequest& request, std::span<const EndpointState> endpoints) {
  LLMD_ASSIGN_OR_RETURN(const std::unique_ptr<Scene> scene, Set(request, endpoints));
  LLMD_ASSIGN_OR_RETURN(const std::vector<uint32_t> kept, Keep(*scene));
  std::vector<std::string> out;
  out.reserve(kept.size());
  for (uint32_t i : kept) out.push_back(scene->snapshot.info(i).name);
  return out;
}

}  // namespace llmd::sched::testing
