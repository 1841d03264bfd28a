// How fast a queue empties, for Retry-After: dispatches a second over the last seconds, older ones
// weighing less.
#pragma once

#include <algorithm>
#include <cmath>

#include "llmd/clock.h"
#include "math/repeatable.h"

namespace llmd::sched {

// Thread-compatible.
class DrainRate {
 public:
  void Dispatched(TimePoint now) {
    if (weight_ == 0) first_ = now;
    weight_ = Weight(now) + 1;
    last_ = now;
  }
  double PerSecond(TimePoint now) const { return Weight(now) / Window(now); }
  // Seconds until a request behind `ahead` others may expect its turn, 1..60; 60 when nothing was
  // dispatched lately.
  int RetryAfter(TimePoint now, size_t ahead) const {
    if (ahead == 0) return 1;
    const double rate = PerSecond(now);
    const double seconds = rate > 0 ? std::ceil(static_cast<double>(ahead) / rate) : kMaxSeconds;
    return static_cast<int>(std::clamp(seconds, 1.0, kMaxSeconds));
  }

 private:
  static constexpr double kWindowSeconds = 10, kMaxSeconds = 60;
  double Weight(TimePoint now) const {
    const double age = std::chrono::duration<double>(now - last_).count();
    return weight_ * RepeatableExp(-std::max(age, 0.0) / kWindowSeconds);
  }
  // The part of the window that has been seen.
  double Window(TimePoint now) const {
    const double seen = std::chrono::duration<double>(now - first_).count();
    return std::max(1.0, kWindowSeconds * (1 - RepeatableExp(-seen / kWindowSeconds)));
  }
  double weight_ = 0;
  TimePoint first_{}, last_{};
};

}  // namespace llmd::sched
