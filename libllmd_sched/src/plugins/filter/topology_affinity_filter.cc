// Rule: docs/reference/filters.md: keeps candidates near the endpoint that an earlier stage chose.
#include <algorithm>

#include "llmd/sched/filter.h"
#include "plugins/builtin.h"
#include "plugins/common.h"
#include "plugins/data/topology.h"

namespace llmd::sched {
namespace {

class TopologyAffinityFilter final : public Filter {
 public:
  TopologyAffinityFilter(TopologyExtractor* topology, TopologyLevel loosest)
      : topology_(topology), loosest_(loosest) {}

  void Keep(RequestContext& request, const Snapshot& snapshot,
            std::vector<uint32_t>& candidates) override {
    if (topology_ == nullptr || request.peer < 0) return;
    const auto places = topology_->Of(snapshot.set);
    const Topology& peer = (*places)[static_cast<size_t>(request.peer)];
    const auto far = [&](uint32_t c) { return Closest(peer, (*places)[c]) > loosest_; };
    // Nearness is a wish: it must not leave a request without an endpoint.
    if (!std::all_of(candidates.begin(), candidates.end(), far)) std::erase_if(candidates, far);
  }

 private:
  TopologyExtractor* const topology_;
  const TopologyLevel loosest_;
};

StatusOr<std::unique_ptr<Plugin>> Make(PluginArgs& args) {
  Params params(args.parameters);
  const std::vector<std::string> levels = {"host", "rack", "zone", "region"};
  const std::string level = params.Choice("minAffinity", "host", levels);
  const auto loosest = std::find(levels.begin(), levels.end(), level) - levels.begin();
  TopologyExtractor* topology = FindTopology(params, args);
  return Done(params, std::make_unique<TopologyAffinityFilter>(
                          topology, static_cast<TopologyLevel>(loosest)));
}

}  // namespace

Status RegisterTopologyAffinityFilter(PluginRegistry& registry) {
  return AddPlugin(
      registry,
      {.type = "topology-affinity-filter",
       .kind = "filter",
       .stability = Stability::kAlpha,
       .help =
           "Keeps endpoints near the one that the earlier stage chose (disagg-profile-handler); "
           "all when nothing is known of it or none is near.",
       .params = {{"minAffinity", "host", "loosest level to share: host, rack, zone or region"},
                  {"topologyProducerName", "topology-extractor", "whose levels to read"}},
       .make = Make});
}

}  // namespace llmd::sched
