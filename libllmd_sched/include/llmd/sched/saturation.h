// Saturation detectors say how full the pool is: 1 closes the gate for new requests, and it may
// exceed 1.
#pragma once

#include "llmd/sched/endpoint.h"
#include "llmd/sched/plugin.h"

namespace llmd::sched {

class SaturationDetector : public virtual Plugin {
 public:
  // Over the endpoints `candidates` of the snapshot; an empty set is saturated (1).
  virtual double Saturation(const Snapshot& snapshot, const std::vector<uint32_t>& candidates) = 0;
};

}  // namespace llmd::sched
