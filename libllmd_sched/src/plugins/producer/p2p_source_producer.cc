// Names a peer from which to fetch cached blocks (docs/reference/producers.md).
#include <algorithm>
#include <cmath>

#include "llmd/sched/hooks.h"
#include "plugins/builtin.h"
#include "plugins/common.h"

namespace llmd::sched {
namespace {

uint32_t Fnv1a32(std::string_view text) {
  uint32_t hash = 0x811c9dc5;
  for (char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x01000193;
  return hash;
}

class P2pSourceProducer final : public PreRequestHook {
 public:
  P2pSourceProducer(double min_delta, DataKey match) : min_delta_(min_delta), match_(match) {}

  void PreRequest(RequestContext& request, const Snapshot& snapshot, const ScheduleOutcome& outcome,
                  HeaderList& set_headers) override {
    const Attribute* match = request.Get(match_);
    if (match == nullptr || match->per_endpoint.empty() || outcome.primary.empty()) return;
    const int source = Choose(*match, snapshot, request);
    if (source < 0) return;
    // The endpoint that prefills is the one that needs the blocks, in whatever tier.
    const uint32_t computing = outcome.prefill.empty() ? outcome.primary[0] : outcome.prefill[0];
    const double gain =
        (Served(*match, static_cast<uint32_t>(source)) - match->CachedBlocks(computing)) *
        match->block_size;
    if (static_cast<uint32_t>(source) == computing || gain < min_delta_) return;
    set_headers.emplace_back("x-kv-cache-source-host-port", snapshot.set->host_ports[source]);
  }

 private:
  // Peers serve from their cpu tier; where tiers are not known any block counts.
  static double Served(const Attribute& match, uint32_t endpoint) {
    return match.offloaded.empty() ? match.CachedBlocks(endpoint) : match.offloaded[endpoint];
  }
  static double Weight(const Snapshot& snapshot, uint32_t endpoint) {
    const double waiting = snapshot.waiting[endpoint];
    return 1 / (1 + (std::isnan(waiting) ? 0 : waiting));
  }
  // Among those within one block of the most, by weight; the request's id says where on the line.
  // -1 when nobody holds a block.
  static int Choose(const Attribute& match, const Snapshot& snapshot,
                    const RequestContext& request) {
    double most = 0, total = 0;
    for (uint32_t i : request.eligible) most = std::max(most, Served(match, i));
    const auto near = [&](uint32_t i) {
      return Served(match, i) > 0 && Served(match, i) + 1 >= most;
    };
    for (uint32_t i : request.eligible) total += near(i) ? Weight(snapshot, i) : 0;
    double left = static_cast<double>(Fnv1a32(request.request_id)) / 0x1p32 * total;
    int chosen = -1;
    for (uint32_t i : request.eligible) {
      if (!near(i)) continue;
      chosen = static_cast<int>(i);
      const double weight = Weight(snapshot, i);
      if (left < weight) break;
      left -= weight;
    }
    return chosen;
  }

  const double min_delta_;
  const DataKey match_;
};

}  // namespace

Status RegisterP2pSourceProducer(PluginRegistry& registry) {
  return AddPlugin(
      registry,
      {.type = "p2p-source-producer",
       .kind = "producer",
       .stability = Stability::kAlpha,
       .help = "Names in x-kv-cache-source-host-port a peer that holds more of the prompt than the "
               "endpoint that will compute it.",
       .params = {{"minCachedTokenDelta", "1", "tokens that the peer must hold beyond it"},
                  {"prefillProfileName", "", "has no effect: the handler says what prefills"},
                  {"prefixMatchInfoProducerName", "approx-prefix-cache-producer",
                   "whose matches to read"}},
       .make = [](PluginArgs& args) -> StatusOr<std::unique_ptr<Plugin>> {
         Params params(args.parameters);
         const auto delta = static_cast<double>(params.Int("minCachedTokenDelta", 1, 1, INT32_MAX));
         if (!params.String("prefillProfileName", "").empty())
           args.env.Warn("prefillProfileName has no effect: the handler says what prefills");
         const DataKey match = args.env.Consume(
             "PrefixCacheMatchInfo", params.String("prefixMatchInfoProducerName", ""), true);
         return Done(params, std::make_unique<P2pSourceProducer>(delta, match));
       }});
}

}  // namespace llmd::sched
