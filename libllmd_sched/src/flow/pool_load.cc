#include "flow/pool_load.h"

#include <algorithm>

namespace llmd::sched {

std::shared_ptr<const PoolMeter::Stages> PoolMeter::StagesOf(
    const std::shared_ptr<const EndpointSet>& set) {
  std::lock_guard lock(mutex_);
  if (stages_ && stages_->set == set) return stages_;
  auto stages = std::make_shared<Stages>();
  stages->set = set;
  for (uint32_t i = 0; set && i < set->size(); ++i) {
    if (set->roles[i] & (kRoleDecode | kRoleUnlabelled)) stages->decode.push_back(i);
    if (set->roles[i] & kRolePrefill) stages->prefill.push_back(i);
    stages->all.push_back(i);
  }
  stages_ = std::move(stages);
  return stages_;
}

PoolLoad PoolMeter::Judge(const Snapshot& snapshot, const Stages& stages) const {
  PoolLoad load;
  load.decode = detector_.Saturation(snapshot, stages.decode);
  if (!stages.prefill.empty()) load.prefill = detector_.Saturation(snapshot, stages.prefill);
  load.effective = std::max(load.prefill, load.decode);
  load.per_request = detector_.PerRequest(snapshot, stages.decode);
  if (!stages.prefill.empty()) {
    load.per_request = std::max(load.per_request, detector_.PerRequest(snapshot, stages.prefill));
  }
  load.stale = detector_.Stale(snapshot, stages.all);
  return load;
}

PoolLoad PoolMeter::Read(const Snapshot& snapshot) {
  const std::shared_ptr<const Stages> stages = StagesOf(snapshot.set);
  PoolLoad load;
  Guarded(
      detector_, [&] { load = Judge(snapshot, *stages); },
      [&](const Status& status) { failed_(detector_, status); });
  return load;
}

TimePoint PoolMeter::ChangesAt(const Snapshot& snapshot, TimePoint now) const {
  TimePoint at = TimePoint::max();
  Guarded(
      detector_, [&] { at = detector_.ChangesAt(snapshot, now); },
      [&](const Status& status) { failed_(detector_, status); });
  return at;
}

}  // namespace llmd::sched
