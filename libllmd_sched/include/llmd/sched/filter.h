// Filters narrow the candidates of one profile. They run in configured order; an empty set ends the
// profile.
#pragma once

#include <cstdint>
#include <vector>

#include "llmd/sched/endpoint.h"
#include "llmd/sched/plugin.h"

namespace llmd::sched {

class Filter : public virtual Plugin {
 public:
  // Removes from `candidates` (snapshot indexes, order kept) those that must not be chosen. No
  // locks across requests, no I/O.
  virtual void Keep(RequestContext& request, const Snapshot& snapshot,
                    std::vector<uint32_t>& candidates) = 0;
  // True when an empty result means "full" (429) and not "nothing matches" (503).
  virtual bool drops_saturated() const { return false; }
};

}  // namespace llmd::sched
