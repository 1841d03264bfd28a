// Discovery finds the endpoints of a pool and follows their changes.
#pragma once

#include <functional>
#include <vector>

#include "llmd/sched/endpoint.h"
#include "llmd/sched/plugin.h"

namespace llmd::sched {

class Discovery : public virtual Plugin {
 public:
  // Reads the endpoints once and hands the whole set to `update`, then again after each change,
  // from a thread of its own, until Stop. An error when the first read fails.
  virtual Status Start(std::function<void(std::vector<EndpointInfo>)> update) = 0;
  // Joins its thread. Idempotent.
  virtual void Stop() = 0;
};

}  // namespace llmd::sched
