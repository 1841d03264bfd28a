// How consumers read LatencyPredictionInfo.
#pragma once

#include "llmd/sched/endpoint.h"
#include "llmd/sched/request_context.h"

namespace llmd::sched {

// One per endpoint of the snapshot, or null when nobody predicted (or not for all of them).
inline const LatencyPrediction* PredictionsOf(const RequestContext& request, DataKey key,
                                              const Snapshot& snapshot) {
  const Attribute* info = request.Get(key);
  return info && info->latency.size() == snapshot.size() ? info->latency.data() : nullptr;
}

}  // namespace llmd::sched
