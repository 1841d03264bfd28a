// The saturation of the pool by stage (docs/reference/flow-control.md): endpoints by role,
// dual-role ones in both; the fuller stage counts.
#pragma once

#include <cmath>
#include <memory>
#include <mutex>
#include <vector>

#include "llmd/sched/endpoint.h"
#include "llmd/sched/saturation.h"
#include "pass/plugin_guard.h"

namespace llmd::sched {

struct PoolLoad {
  double prefill = 0;                // 0 without prefill endpoints
  double decode = 0, effective = 0;  // decode: 0 where there are prefill endpoints only
  double per_request = INFINITY;     // what one more request adds at most
  size_t stale = 0;                  // endpoints judged without fresh metrics
};

// Thread-safe. The detector must outlive it. While one throws the pool counts as empty, so that
// nothing is held back for ever by a plugin that is broken.
class PoolMeter {
 public:
  PoolMeter(SaturationDetector& detector, OnPluginFailed failed)
      : detector_(detector), failed_(std::move(failed)) {}
  PoolLoad Read(const Snapshot& snapshot);
  // When Read may say something else by the passing of time alone; max = never.
  TimePoint ChangesAt(const Snapshot& snapshot, TimePoint now) const;

 private:
  struct Stages {
    std::shared_ptr<const EndpointSet> set;
    std::vector<uint32_t> prefill, decode, all;
  };
  std::shared_ptr<const Stages> StagesOf(const std::shared_ptr<const EndpointSet>& set);

  PoolLoad Judge(const Snapshot& snapshot, const Stages& stages) const;

  SaturationDetector& detector_;
  const OnPluginFailed failed_;
  std::mutex mutex_;
  std::shared_ptr<const Stages> stages_;  // of the latest membership; guarded by mutex_
};

}  // namespace llmd::sched
