// Ordering policies sort the requests of one flow.
#pragma once

#include <cstddef>
#include <cstdint>

#include "llmd/clock.h"
#include "llmd/sched/plugin.h"

namespace llmd::sched {

// A waiting request as the policies see it.
struct QueuedItem {
  uint64_t sequence = 0;  // order of arrival
  TimePoint enqueued{};
  TimePoint deadline{};      // enqueue + TTL; max() without one
  TimePoint slo_deadline{};  // received + TTFT SLO; max() without one
  size_t bytes = 0;
  double prompt_tokens = 0;       // estimate, a token per 4 bytes of prompt
  double max_output_tokens = -1;  // of the request; -1 = not given
};

class OrderingPolicy : public virtual Plugin {
 public:
  // A strict weak order: true when `a` goes before `b`. Must not change while they wait.
  virtual bool Before(const QueuedItem& a, const QueuedItem& b) const noexcept = 0;
};

}  // namespace llmd::sched
