// Scorers say how good each candidate is. The scheduler clamps to [0, 1], multiplies by the
// profile's weight and sums.
#pragma once

#include <cstdint>
#include <span>

#include "llmd/sched/endpoint.h"
#include "llmd/sched/plugin.h"

namespace llmd::sched {

class Scorer : public virtual Plugin {
 public:
  // Writes scores[i] for candidates[i]; scores come in as NaN, and one left so counts as 0 ("not
  // scored"). Must not depend on the order of the candidates.
  virtual void Score(RequestContext& request, const Snapshot& snapshot,
                     std::span<const uint32_t> candidates, std::span<double> scores) = 0;
};

}  // namespace llmd::sched
