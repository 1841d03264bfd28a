// The saturation of the pool by stage (endpoint-picker.md §7): endpoints by role, dual-role ones in
// both; the fuller stage counts.
#pragma once

#include <cmath>
#include <memory>
#include <mutex>
#include <vector>

#include "llmd/sched/endpoint.h"
#include "llmd/sched/saturation.h"

namespace llmd::sched {

struct PoolLoad {
  double prefill = 0;  // 0 without prefill endpoints
  double decode = 0, effective = 0;
  double per_request = INFINITY;  // what one more request adds at most
  size_t stale = 0;               // endpoints judged without fresh metrics
};

// Thread-safe. The detector must outlive it.
class PoolMeter {
 public:
  explicit PoolMeter(SaturationDetector& detector) : detector_(detector) {}
  PoolLoad Read(const Snapshot& snapshot);

 private:
  struct Stages {
    std::shared_ptr<const EndpointSet> set;
    std::vector<uint32_t> prefill, decode, all;
  };
  std::shared_ptr<const Stages> StagesOf(const std::shared_ptr<const EndpointSet>& set);

  SaturationDetector& detector_;
  std::mutex mutex_;
  std::shared_ptr<const Stages> stages_;  // of the latest membership; guarded by mutex_
};

}  // namespace llmd::sched
