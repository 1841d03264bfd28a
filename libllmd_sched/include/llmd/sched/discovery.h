// Discovery finds the endpoints of a pool and follows their changes.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "llmd/sched/endpoint.h"
#include "llmd/sched/plugin.h"
#include "llmd/sched/policy.h"

namespace llmd::sched {

class Discovery : public virtual Plugin {
 public:
  // Where objectives and rewrites go, for kinds that know any; before Start, from the same threads
  // as its updates and each time before them.
  // NOLINTNEXTLINE(performance-unnecessary-value-param): those that override it keep it
  virtual void FollowPolicy(std::function<void(std::shared_ptr<const PoolPolicy>)> update) {}
  // Reads the endpoints once and hands the whole set to `update`, then again after each change,
  // from a thread of its own, until Stop. An error when the first read fails.
  virtual Status Start(std::function<void(std::vector<EndpointInfo>)> update) = 0;
  // Joins its thread. Idempotent.
  virtual void Stop() = 0;
};

}  // namespace llmd::sched
