// Producers learn a fact about a request (and each endpoint) and leave it under a declared data
// key. They run one after another in dependency order before scheduling; a failure is logged and
// the request goes on without the fact.
#pragma once

#include <chrono>
#include <functional>
#include <memory>

#include "llmd/clock.h"
#include "llmd/sched/endpoint.h"
#include "llmd/sched/plugin.h"

namespace llmd::sched {

class Producer : public virtual Plugin {
 public:
  virtual Status Produce(RequestContext& request, const Snapshot& snapshot) = 0;
};

// A producer that may have to wait: for an engine's answer, for the rest of a batch. Services that
// can wait call ProduceLater instead of Produce.
class SlowProducer : public Producer {
 public:
  // Never blocks. Calls `done` exactly once, in this call or later from any thread, and within the
  // limit (wait_limit.h); `request` and `snapshot` hold until then. To drop `done` is a failure.
  virtual void ProduceLater(RequestContext& request,
                            const std::shared_ptr<const Snapshot>& snapshot,
                            std::function<void(Status)> done) = 0;
  // Called every 10 ms or so while requests wait; by whoever drives time by hand, when DueAt says.
  virtual void Tick(TimePoint now) {}
  // When Tick has something to do, later than `now`; max = never, unless another request comes.
  virtual TimePoint DueAt(TimePoint now) const { return now + std::chrono::milliseconds(10); }
};

}  // namespace llmd::sched
