// Saturation detectors say how full the pool is: 1 closes the gate for new requests, and it may
// exceed 1.
#pragma once

#include <chrono>
#include <cmath>
#include <cstddef>
#include <vector>

#include "llmd/clock.h"
#include "llmd/sched/endpoint.h"
#include "llmd/sched/plugin.h"

namespace llmd::sched {

class SaturationDetector : public virtual Plugin {
 public:
  // Over the endpoints `candidates` of the snapshot; an empty set is saturated (1).
  virtual double Saturation(const Snapshot& snapshot, const std::vector<uint32_t>& candidates) = 0;
  // How many of them are judged without fresh metrics; all endpoints of the pool are asked for at
  // once, so this is where a gauge may be kept.
  virtual size_t Stale(const Snapshot& snapshot, const std::vector<uint32_t>& candidates) const {
    return 0;
  }
  // What a request on its way to an endpoint adds to Saturation at most. With it several requests
  // may be decided on at once; INFINITY = not known: one after another.
  virtual double PerRequest(const Snapshot& snapshot,
                            const std::vector<uint32_t>& candidates) const {
    return INFINITY;
  }
  // How long after the end of a request its room is sure to show; `refresh` = time between scrapes.
  virtual Duration ReactionTime(Duration refresh) const {
    return refresh + std::chrono::milliseconds(450);
  }
  // When Saturation may be another by the passing of time alone, later than `now`; max = never.
  // Unless it says so it is asked every 10 ms while requests wait.
  virtual TimePoint ChangesAt(const Snapshot& snapshot, TimePoint now) const {
    return now + std::chrono::milliseconds(10);
  }
};

}  // namespace llmd::sched
