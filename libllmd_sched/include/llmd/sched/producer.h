// Producers learn a fact about a request (and each endpoint) and leave it under a declared data
// key. They run one after another in dependency order before scheduling; a failure is logged and
// the request goes on without the fact.
#pragma once

#include "llmd/sched/endpoint.h"
#include "llmd/sched/plugin.h"

namespace llmd::sched {

class Producer : public virtual Plugin {
 public:
  virtual Status Produce(RequestContext& request, const Snapshot& snapshot) = 0;
};

}  // namespace llmd::sched
