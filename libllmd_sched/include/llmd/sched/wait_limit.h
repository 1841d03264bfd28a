// How long a request may wait for a slow producer.
#pragma once

#include <chrono>

#include "llmd/clock.h"
#include "llmd/sched/plugin.h"

namespace llmd::sched {

// A SlowProducer that needs another limit than the default is one of these too. In the Tick of the
// time when a wait reaches the limit, and of TimePoint::max(), which says that the director stops,
// the producer has to end it. A request that still waits afterwards is refused: the producer may be
// at work on it. From then on what the request views (its body and headers) is gone; the request
// itself and the snapshot hold as long as the producer has `done`.
class WaitLimited : public virtual Plugin {
 public:
  static constexpr Duration kDefault = std::chrono::milliseconds(400);
  // Does not change.
  virtual Duration WaitLimit() const = 0;
};

}  // namespace llmd::sched
