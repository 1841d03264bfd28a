// Where endpoints stand: host, rack, zone and region, as small numbers that are equal where the
// names are.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "llmd/sched/extractor.h"

namespace llmd::sched {

enum TopologyLevel : uint8_t { kHost, kRack, kZone, kRegion, kNoLevel };

struct Topology {
  std::array<uint32_t, kNoLevel> at = {};  // 0 = not known, which equals nothing
  bool known() const { return at != std::array<uint32_t, kNoLevel>(); }
};

// The tightest level that both share; kNoLevel when none.
TopologyLevel Closest(const Topology& a, const Topology& b);

// Thread-safe.
class TopologyExtractor : public EndpointExtractor {
 public:
  // By index of `set`; never null.
  virtual std::shared_ptr<const std::vector<Topology>> Of(
      const std::shared_ptr<const EndpointSet>& set) = 0;
};

// The extractor that `topologyProducerName` of `params` names, else the one of the default name;
// null with a warning when that is not configured.
TopologyExtractor* FindTopology(Params& params, PluginArgs& args);

}  // namespace llmd::sched
