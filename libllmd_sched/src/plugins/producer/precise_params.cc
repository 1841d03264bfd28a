// The parameters of precise prefix routing, in the field's nesting.
#include <array>

#include "plugins/producer/precise_producer.h"

namespace llmd::sched {
namespace {

constexpr char kNoEvents[] =
    "reading KV events from engines is not supported yet; without it leave kvEventsConfig out and "
    "set speculativeIndexing";

void Close(Params& child, Params& parent) {
  if (Status status = child.Finish(); !status.ok()) parent.Fail(status);
}

void ReadTokens(Params& params, PreciseSettings& s) {
  Params tokens(params.node("tokenProcessorConfig"));
  const int64_t old = tokens.Int("blockSize", 16, 1, 1 << 20);
  s.block_tokens = static_cast<size_t>(tokens.Int("blockSizeTokens", old, 1, 1 << 20));
  s.hash_seed = tokens.String("hashSeed", "");
  s.hash_algorithm = tokens.String("hashAlgorithm", "cbor-fnv");
  Close(tokens, params);
}

void ReadWeights(Params& indexer, PreciseSettings& s) {
  if (!indexer.Has("kvCacheBackendConfigs")) return;
  s.index.tier_weights.clear();
  for (const config::Node& item : indexer.node("kvCacheBackendConfigs").Items()) {
    Params backend(item);
    const std::string name = backend.String("name", "");
    if (name.empty()) backend.Fail("name", "expected the name of a tier");
    s.index.tier_weights[name] = backend.Double("weight", 1, 0, 1);
    Close(backend, indexer);
  }
  if (s.index.tier_weights.size() >= kv::kMaxTiers)
    indexer.Fail("kvCacheBackendConfigs",
                 "names more than " + std::to_string(kv::kMaxTiers - 1) + " tiers");
}

void ReadIndexer(Params& params, PluginEnv& env, PreciseSettings& s) {
  Params indexer(params.node("indexerConfig"));
  Params index(indexer.node("kvBlockIndexConfig"));
  Params memory(index.node("inMemoryConfig"));
  s.index.max_keys = static_cast<size_t>(memory.Int("size", 100'000'000, 1, int64_t{1} << 40));
  if (memory.Has("podCacheSize"))
    s.index.max_holders_per_key = static_cast<size_t>(memory.Int("podCacheSize", 10, 1, 1 << 16));
  Close(memory, index);
  for (const char* key : {"redisConfig", "valkeyConfig", "costAwareMemoryConfig"}) {
    if (index.Has(key)) index.Fail(key, "not supported yet; use inMemoryConfig");
  }
  s.metrics = index.Bool("enableMetrics", false);
  if (index.Has("metricsLoggingInterval")) {
    index.Time("metricsLoggingInterval", Duration());
    env.Warn("metricsLoggingInterval has no effect: the metrics are not logged");
  }
  ReadWeights(indexer, s);
  Close(index, indexer);
  Close(indexer, params);
}

void ReadEvents(Params& params, PluginEnv& env) {
  Params events(params.node("kvEventsConfig"));
  if (!events.String("zmqEndpoint", "").empty()) events.Fail("zmqEndpoint", kNoEvents);
  if (events.Bool("discoverPods", false)) events.Fail("discoverPods", kNoEvents);
  if (events.Has("podDiscoveryConfig")) events.Fail("podDiscoveryConfig", kNoEvents);
  events.String("topicFilter", "kv@");
  events.Int("concurrency", 4, 1, 1024);
  events.Choice("engineType", "vllm", {"vllm", "sglang"});
  for (const char* key : {"topicFilter", "concurrency", "engineType"}) {
    if (events.Has(key))
      env.Warn(std::string("kvEventsConfig.") + key + " has no effect: no KV events are read");
  }
  Close(events, params);
}

}  // namespace

PreciseSettings ReadPrecise(Params& params, PluginEnv& env) {
  PreciseSettings s;
  ReadTokens(params, s);
  ReadIndexer(params, env, s);
  ReadEvents(params, env);
  s.speculative = params.Bool("speculativeIndexing", false);
  if (params.Has("speculativeTTL") && !s.speculative)
    params.Fail("speculativeTTL", "means nothing without speculativeIndexing");
  s.speculative_ttl = params.Time("speculativeTTL", std::chrono::seconds(2));
  if (!s.speculative)
    env.Warn("nothing fills the index: KV events are not read yet and speculativeIndexing is off");
  s.match = env.Produce("PrefixCacheMatchInfo");
  s.tokens = env.Consume("TokenizedPrompt", "", true);
  return s;
}

std::vector<ParamHelp> PreciseHelp() {
  return {
      {"tokenProcessorConfig.blockSizeTokens", "16", "tokens a block; old name blockSize"},
      {"tokenProcessorConfig.hashSeed", "", "as the engines' PYTHONHASHSEED where keys are shared"},
      {"tokenProcessorConfig.hashAlgorithm", "cbor-fnv", "or xxh64"},
      {"indexerConfig.kvBlockIndexConfig.inMemoryConfig.size", "100000000", "keys at most"},
      {"indexerConfig.kvBlockIndexConfig.inMemoryConfig.podCacheSize", "no cap",
       "holders of a key at most, the oldest goes; a cap hides holders of shared prefixes"},
      {"indexerConfig.kvBlockIndexConfig.enableMetrics", "false", "count look-ups"},
      {"indexerConfig.kvCacheBackendConfigs",
       "[{name: gpu, weight: 1.0}, {name: cpu, weight: 0.8}]",
       "what a block in each tier counts; other tiers count 1"},
      {"kvEventsConfig", "",
       "zmqEndpoint, discoverPods and podDiscoveryConfig are errors: events are not read yet"},
      {"speculativeIndexing", "false", "take the chosen endpoints to hold the prompt's blocks"},
      {"speculativeTTL", "2s", "for so long"}};
}

}  // namespace llmd::sched
