#include "config/flow_loader.h"

#include <algorithm>
#include <set>

namespace llmd::sched {
namespace {

bool AlwaysRegistered(const std::string& name) {
  return name == "fcfs-ordering-policy" || name == "global-strict-fairness-policy" ||
         name == "static-usage-limit-policy";
}

double ReadQuantity(GraphBuilder& b, const config::Node& node, double fallback) {
  if (node.IsNull()) return fallback;
  const StatusOr<double> value = node.Quantity();
  if (!value.ok()) b.Error(value.status());
  if (value.ok() && *value < 0) b.Error(node, "expected a quantity that is not negative");
  return value.value_or(fallback);
}

Duration ReadTtl(GraphBuilder& b, const config::Node& node, Duration fallback) {
  if (node.IsNull()) return fallback;
  const StatusOr<Duration> value = node.Duration();
  if (!value.ok()) b.Error(value.status());
  if (value.ok() && *value < Duration::zero())
    b.Error(node, "expected a duration that is not negative");
  return value.value_or(fallback);
}

template <typename T>
T* Policy(GraphBuilder& b, const config::Node& node, const char* fallback, const char* kind) {
  const std::string name = node.IsNull() ? fallback : node.String().value_or("");
  return b.FindAs<T>(node, name, kind, AlwaysRegistered(name));
}

// 0 means unset in a band.
BandConfig ReadBand(GraphBuilder& b, const config::Node& node, int priority) {
  BandConfig out;
  out.priority = priority;
  if (const double bytes = ReadQuantity(b, node.Get("maxBytes"), 0); bytes > 0)
    out.max_bytes = bytes;
  if (const double requests = ReadQuantity(b, node.Get("maxRequests"), 0); requests > 0)
    out.max_requests = requests;
  out.fairness = Policy<FairnessPolicy>(b, node.Get("fairnessPolicyRef"),
                                        "global-strict-fairness-policy", "fairness policy");
  out.ordering = Policy<OrderingPolicy>(b, node.Get("orderingPolicyRef"), "fcfs-ordering-policy",
                                        "ordering policy");
  if (b.graph().flow.enabled && out.fairness != nullptr)
    b.graph().wants_response_body |= out.fairness->wants_usage();
  b.CheckMap(node);
  return out;
}

void ReadBands(GraphBuilder& b, const config::Node& section) {
  FlowConfig& flow = b.graph().flow;
  flow.default_band = ReadBand(b, section.Get("defaultPriorityBand"), 0);
  flow.default_negative_band = section.Has("defaultNegativePriorityBand")
                                   ? ReadBand(b, section.Get("defaultNegativePriorityBand"), -1)
                                   : flow.default_band;
  std::set<int64_t> seen;
  for (const config::Node& item : b.ListOf(section.Get("priorityBands"))) {
    const StatusOr<int64_t> priority = item.Get("priority").Int();
    if (!priority.ok()) b.Error(priority.status());
    if (priority.ok() && *priority != static_cast<int32_t>(*priority))
      b.Error(item.Get("priority"), "expected a 32-bit integer");
    if (!seen.insert(priority.value_or(0)).second)
      b.Error(item, "this priority has a band already");
    flow.bands.push_back(ReadBand(b, item, static_cast<int>(priority.value_or(0))));
  }
  std::sort(flow.bands.begin(), flow.bands.end(),
            [](const BandConfig& x, const BandConfig& y) { return x.priority > y.priority; });
}

void ReadDetector(GraphBuilder& b, const config::Node& root, const config::Node& section) {
  config::Node node = section.Get("saturationDetector");
  if (const config::Node old = root.Get("saturationDetector"); !old.IsNull()) {
    if (!node.IsNull()) b.Error(old, "flowControl.saturationDetector says it already");
    b.Warn(
        "the top-level key saturationDetector is deprecated; use flowControl.saturationDetector");
    node = old;
  }
  const config::Node ref = node.Get("pluginRef");
  const std::string name = ref.String().value_or("utilization-detector");
  b.graph().saturation =
      b.FindAs<SaturationDetector>(ref, name, "saturation detector", ref.IsNull());
  b.CheckMap(node);
}

// The one configured plugin of a kind, else the default.
template <typename T>
T* OnlyPolicy(GraphBuilder& b, const config::Node& node, const char* fallback, const char* kind) {
  const std::vector<T*> all = b.All<T>();
  if (all.size() > 1) {
    b.Error(node, std::string("expected at most one plugin of the kind ") + kind);
  }
  return all.empty() ? b.FindAs<T>(node, fallback, kind, true) : all.front();
}

void ReadEviction(GraphBuilder& b, const config::Node& node) {
  FlowConfig& flow = b.graph().flow;
  const StatusOr<bool> on = node.IsNull() ? StatusOr<bool>(false) : node.Bool();
  if (!on.ok()) b.Error(on.status());
  if (on.value_or(false)) {
    flow.eviction_filter =
        OnlyPolicy<EvictionFilter>(b, node, "sheddable-eviction-filter", "eviction filter");
    flow.eviction_order = OnlyPolicy<EvictionOrder>(
        b, node, "priority-then-time-eviction-order-policy", "eviction order");
  } else if (!b.All<EvictionFilter>().empty() || !b.All<EvictionOrder>().empty()) {
    b.Warn("eviction policies have no effect: flowControl.enableEviction is off");
  }
}

}  // namespace

void ReadFlowControl(GraphBuilder& b, const config::Node& root) {
  const config::Node section = root.Get("flowControl");
  FlowConfig& flow = b.graph().flow;
  ReadDetector(b, root, section);
  if (!flow.enabled && !section.IsNull()) {
    b.Warn("flowControl has no effect: its feature gate is off (the saturation detector is used)");
  }
  flow.max_bytes = ReadQuantity(b, section.Get("maxBytes"), 0);
  flow.max_requests = ReadQuantity(b, section.Get("maxRequests"), 0);
  flow.default_ttl = ReadTtl(b, section.Get("defaultRequestTTL"), std::chrono::seconds(60));
  flow.no_endpoint_ttl = ReadTtl(b, section.Get("noEndpointRequestTTL"), flow.default_ttl);
  ReadBands(b, section);
  const config::Node limit = section.Get("usageLimitPolicyPluginRef");
  flow.limit =
      Policy<UsageLimitPolicy>(b, limit, "static-usage-limit-policy", "usage limit policy");
  ReadEviction(b, section.Get("enableEviction"));
  b.CheckMap(section);
}

}  // namespace llmd::sched
