// The plugin graph a configuration describes. Immutable once built; requests share it by
// shared_ptr<const Graph>.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "llmd/metrics.h"
#include "llmd/sched/admitter.h"
#include "llmd/sched/discovery.h"
#include "llmd/sched/eviction.h"
#include "llmd/sched/extractor.h"
#include "llmd/sched/fairness.h"
#include "llmd/sched/filter.h"
#include "llmd/sched/hooks.h"
#include "llmd/sched/parser.h"
#include "llmd/sched/picker.h"
#include "llmd/sched/producer.h"
#include "llmd/sched/profile_handler.h"
#include "llmd/sched/saturation.h"
#include "llmd/sched/scorer.h"
#include "llmd/sched/source.h"
#include "llmd/sched/usage_limit.h"

namespace llmd::sched {

template <typename T>
struct Timed {
  T* plugin = nullptr;
  Histogram* duration = nullptr;  // llm_d_epp_plugin_duration_seconds
};
struct WeightedScorer : Timed<Scorer> {
  double weight = 1;
};

struct TimedProducer : Timed<Producer> {
  SlowProducer* slow = nullptr;  // the same one, when it may have to wait
};

struct Profile {
  std::string name;
  std::vector<Timed<Filter>> filters;
  std::vector<WeightedScorer> scorers;
  Timed<Picker> picker;
};

struct SourceBinding {
  Source* source = nullptr;
  std::vector<Extractor*> extractors;
  std::vector<std::vector<AttributeId>> attributes = {};  // by extractor: those somebody reads
  bool gauges = false;  // an extractor of it reads the gauges that grow stale
};

// A named number that an extractor fills.
struct EndpointAttribute {
  std::string name, producer;      // plugin
  AttributeId id = kNoAttribute;   // kNoAttribute = nobody reads it
  AttributeId own = kNoAttribute;  // the id once it is read; kNoAttribute = the next free one
};

struct BandConfig {
  int priority = 0;
  double max_bytes = 1e9, max_requests = 5000;
  FairnessPolicy* fairness = nullptr;
  OrderingPolicy* ordering = nullptr;
};

struct FlowConfig {
  bool enabled = false;
  double max_bytes = 0, max_requests = 0;               // 0 = no global cap
  Duration default_ttl = std::chrono::seconds(60);      // 0 = none
  Duration no_endpoint_ttl = std::chrono::seconds(60);  // 0 = none
  BandConfig default_band, default_negative_band;
  std::vector<BandConfig> bands;      // by descending priority
  UsageLimitPolicy* limit = nullptr;  // never null in a loaded graph
  // Both or, without enableEviction, none.
  const EvictionFilter* eviction_filter = nullptr;
  const EvictionOrder* eviction_order = nullptr;
};

// What a plugin was made from and asked for: by this a reload knows whether it can stay.
struct PluginOrigin {
  struct Use {
    std::string data_type, producer;
    DataKey key = kNoKey;
    bool required = false;
  };
  config::Node parameters;
  std::vector<Use> produces, consumes;
  struct Read {
    std::string attribute, producer;  // as asked for
    AttributeId id = kNoAttribute;
  };
  std::vector<Read> attributes;
  bool fills_attributes = false;  // holds places of its own graph
  std::vector<std::pair<std::string, Plugin*>> dependencies;
  std::vector<std::string> warnings;
};

// The names a decision's record needs; outlives the plugins.
struct GraphNames {
  struct Scorer {
    std::string name;
    double weight = 1;
  };
  struct Profile {
    std::string name, picker;
    std::vector<std::string> filters;
    std::vector<Scorer> scorers;
  };
  std::vector<Profile> profiles;
};

struct Graph {
  const Clock* clock = nullptr;  // never null in a loaded graph; outlives it
  // Declared first: plugins hold references into it. Shared with the graph this one replaced.
  std::shared_ptr<MetricsRegistry> own_metrics;  // when none was given
  std::shared_ptr<InFlightLedger> ledger;        // shared with the graph this one replaced too
  std::deque<EndpointAttribute> attributes;      // plugins hold pointers into it
  AttributeId next_attribute = kFirstAttribute;
  // In the order they were built; a reload shares those that did not change.
  std::vector<std::shared_ptr<Plugin>> plugins;
  std::vector<PluginOrigin> origins;  // by plugin
  std::shared_ptr<const GraphNames> names;
  std::vector<Profile> profiles;
  ProfileHandler* handler = nullptr;
  std::vector<TimedProducer> producers;  // in run order
  bool slow = false;                     // one of them may have to wait
  // PrefixCacheMatchInfo as the scorers read it; kNoKey when nobody produces any.
  DataKey prefix_match = kNoKey;
  std::vector<Parser*> parsers;
  // What FindParser looks at: the path suffixes of `parsers` up to the first that takes any path.
  std::vector<std::pair<std::string, Parser*>> parser_paths;
  Parser* any_path = nullptr;
  void IndexParsers();
  std::vector<RequestHeaderHook*> request_headers;
  std::vector<Admitter*> admitters;
  std::vector<PreRequestHook*> pre_request;
  std::vector<ResponseHook*> response;
  std::vector<EndpointObserver*> observers;
  Discovery* discovery = nullptr;
  std::vector<SourceBinding> sources;
  FlowConfig flow;
  SaturationDetector* saturation = nullptr;
  size_t attribute_count = 0;
  std::vector<std::pair<std::string, std::string>>
      data_keys;  // by DataKey: type, producer; "" = free
  bool wants_response_body = false;
  // Puts the attributes of `e` into its metrics; INVALID_ARGUMENT for one that no extractor here
  // fills.
  Status SetAttributes(const EndpointState& e, EndpointMetrics& metrics) const;
  // Some source feeds the gauges, so that their age means something.
  bool ReadsGauges() const;
  std::vector<std::string> warnings;

  // The parser for `path` (longest suffix wins, then the fallback); null pointer when none takes
  // it.
  Parser* FindParser(std::string_view path) const;
};

// The plugins of `after`, which was loaded with `before` as the previous one, inherit the state of
// those they replace (Successor). Once, when nothing can go wrong any more, and before the first
// request.
void HandOver(const Graph& before, const Graph& after);

}  // namespace llmd::sched
