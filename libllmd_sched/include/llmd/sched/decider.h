// Deciders say whether a stage (prefill elsewhere, encode elsewhere) is worth it for a request.
#pragma once

#include "llmd/sched/endpoint.h"
#include "llmd/sched/plugin.h"

namespace llmd::sched {

class Decider : public virtual Plugin {
 public:
  // `decode` is the snapshot index of the chosen decode endpoint, or -1 when none is chosen yet.
  virtual bool Disaggregate(RequestContext& request, const Snapshot& snapshot, int decode) = 0;
};

}  // namespace llmd::sched
