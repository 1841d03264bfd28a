#include <array>
#include <map>

#include "plugins/builtin.h"
#include "plugins/common.h"
#include "plugins/data/topology.h"

namespace llmd::sched {
namespace {

constexpr const char* kDefaultProducer = "topology-extractor";

class LabelTopology final : public TopologyExtractor {
 public:
  explicit LabelTopology(std::array<std::string, kNoLevel> labels) : labels_(std::move(labels)) {}

  std::shared_ptr<const std::vector<Topology>> Of(
      const std::shared_ptr<const EndpointSet>& set) override {
    // Numbers hold within one membership only, so that names gone do not pile up.
    std::map<std::pair<int, std::string>, uint32_t> numbers;
    return cache_.Get(set, [&](const EndpointInfo& endpoint) {
      Topology out;
      for (int level = kHost; level < kNoLevel; ++level) {
        const std::string value = Value(endpoint, level);
        if (value.empty()) continue;
        const uint32_t next = static_cast<uint32_t>(numbers.size()) + 1;
        out.at[static_cast<size_t>(level)] =
            numbers.try_emplace({level, value}, next).first->second;
      }
      return out;
    });
  }

 private:
  std::string Value(const EndpointInfo& endpoint, int level) const {
    const std::string& label = labels_[static_cast<size_t>(level)];
    const auto found = endpoint.labels.find(label);
    if (!label.empty() && found != endpoint.labels.end()) return found->second;
    return level == kHost ? endpoint.address : "";
  }
  const std::array<std::string, kNoLevel> labels_;
  PerSet<Topology> cache_;
};

StatusOr<std::unique_ptr<Plugin>> Make(PluginArgs& args) {
  Params params(args.parameters);
  std::array<std::string, kNoLevel> labels = {params.String("hostname", ""),
                                              params.String("rack", ""), params.String("zone", ""),
                                              params.String("region", "")};
  return Done(params, std::make_unique<LabelTopology>(std::move(labels)));
}

}  // namespace

TopologyLevel Closest(const Topology& a, const Topology& b) {
  for (uint8_t level = kHost; level < kNoLevel; ++level) {
    if (a.at[level] != 0 && a.at[level] == b.at[level]) return static_cast<TopologyLevel>(level);
  }
  return kNoLevel;
}

TopologyExtractor* FindTopology(Params& params, PluginArgs& args) {
  const std::string name = params.String("topologyProducerName", "");
  const StatusOr<Plugin*> plugin = args.env.Dependency(name.empty() ? kDefaultProducer : name);
  if (!plugin.ok() && name.empty()) {
    args.env.Warn("no topology-extractor is configured: it has no effect");
    return nullptr;
  }
  auto* topology = plugin.ok() ? dynamic_cast<TopologyExtractor*>(*plugin) : nullptr;
  if (!plugin.ok()) {
    params.Fail("topologyProducerName", plugin.status().message());
  } else if (topology == nullptr) {
    params.Fail("topologyProducerName", "plugin '" + (name.empty() ? kDefaultProducer : name) +
                                            "' is no topology-extractor");
  }
  return topology;
}

Status RegisterTopologyExtractor(PluginRegistry& registry) {
  return AddPlugin(
      registry, {.type = kDefaultProducer,
                 .kind = "extractor",
                 .stability = Stability::kAlpha,
                 .help = "Where endpoints stand, from their labels; for topology-affinity-*. Needs "
                         "no source.",
                 .params = {{"hostname", "",
                             "label that names the host; the endpoint's address "
                             "where it is missing"},
                            {"rack", "", "label that names the rack"},
                            {"zone", "", "label that names the zone"},
                            {"region", "", "label that names the region"}},
                 .make = Make});
}

}  // namespace llmd::sched
