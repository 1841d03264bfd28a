// Scores: docs/reference/scorers.md, shaped by the bandwidth of a KV transfer over each distance.
#include <algorithm>
#include <array>

#include "llmd/sched/scorer.h"
#include "plugins/builtin.h"
#include "plugins/common.h"
#include "plugins/data/topology.h"

namespace llmd::sched {
namespace {

constexpr std::array<double, kNoLevel + 1> kScores = {1, .2, .05, .02, 0};

class TopologyAffinityScorer final : public Scorer {
 public:
  explicit TopologyAffinityScorer(TopologyExtractor* topology) : topology_(topology) {}
  void Score(RequestContext& request, const Snapshot& snapshot,
             std::span<const uint32_t> candidates, std::span<double> scores) override {
    std::fill(scores.begin(), scores.end(), 0.0);
    if (topology_ == nullptr || request.peer < 0) return;
    const auto places = topology_->Of(snapshot.set);
    const Topology& peer = (*places)[static_cast<size_t>(request.peer)];
    for (size_t i = 0; i < candidates.size(); ++i)
      scores[i] = kScores[Closest(peer, (*places)[candidates[i]])];
  }

 private:
  TopologyExtractor* const topology_;
};

}  // namespace

Status RegisterTopologyAffinityScorer(PluginRegistry& registry) {
  return AddPlugin(
      registry,
      {.type = "topology-affinity-scorer",
       .kind = "scorer",
       .stability = Stability::kAlpha,
       .help = "Prefers endpoints near the one that the earlier stage chose: same host 1, rack "
               "0.2, zone 0.05, region 0.02.",
       .params = {{"topologyProducerName", "topology-extractor", "whose levels to read"}},
       .make = [](PluginArgs& args) -> StatusOr<std::unique_ptr<Plugin>> {
         Params params(args.parameters);
         TopologyExtractor* topology = FindTopology(params, args);
         return Done(params, std::make_unique<TopologyAffinityScorer>(topology));
       }});
}

}  // namespace llmd::sched
