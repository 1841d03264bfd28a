// Pickers rank the scored candidates.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "llmd/sched/endpoint.h"
#include "llmd/sched/plugin.h"

namespace llmd::sched {

class Picker : public virtual Plugin {
 public:
  // Appends to `picked` snapshot indexes, best first; at least one when there are candidates.
  // `totals` are the candidates' weighted sums. Ties are broken by request.random. Returns how many
  // candidates shared the best total (0 = not asked).
  virtual int Pick(RequestContext& request, const Snapshot& snapshot,
                   std::span<const uint32_t> candidates, std::span<const double> totals,
                   std::vector<uint32_t>& picked) = 0;
};

}  // namespace llmd::sched
