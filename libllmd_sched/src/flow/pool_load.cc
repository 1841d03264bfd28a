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
    const uint8_t role = set->roles[i];
    if (role == 0 || (role & (kRoleDecode | kRoleUnlabelled)) != 0) stages->decode.push_back(i);
    if (role & kRolePrefill) stages->prefill.push_back(i);
    stages->all.push_back(i);
  }
  // Encoders alone are a pool all the same.
  if (stages->decode.empty() && stages->prefill.empty()) stages->decode = stages->all;
  stages_ = std::move(stages);
  return stages_;
}

PoolLoad PoolMeter::Judge(const Snapshot& snapshot, const Stages& stages) const {
  PoolLoad load;
  // A stage that nobody is in does not count; a pool that nobody is in is full.
  const bool decodes = !stages.decode.empty() || stages.prefill.empty();
  if (decodes) load.decode = detector_.Saturation(snapshot, stages.decode);
  if (!stages.prefill.empty()) load.prefill = detector_.Saturation(snapshot, stages.prefill);
  load.effective = std::max(load.prefill, load.decode);
  if (decodes) load.per_request = detector_.PerRequest(snapshot, stages.decode);
  if (!stages.prefill.empty()) {
    const double prefill = detector_.PerRequest(snapshot, stages.prefill);
    load.per_request = decodes ? std::max(load.per_request, prefill) : prefill;
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
