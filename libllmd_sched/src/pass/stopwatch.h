// Time spent, by a clock that may be a fake one, into histograms.
#pragma once

#include <utility>

#include "llmd/clock.h"
#include "llmd/metrics.h"

namespace llmd::sched {

// Chains one clock reading per piece of work.
class Stopwatch {
 public:
  explicit Stopwatch(const Clock& clock) : clock_(&clock), last_(clock.Now()) {}
  void Lap(Histogram* histogram) {
    if (histogram != nullptr) histogram->Observe(Seconds(Lap()));
  }
  // Since the start or the last lap.
  Duration Lap() {
    const TimePoint now = clock_->Now();
    return now - std::exchange(last_, now);
  }
  // When it started, or the last lap ended.
  TimePoint last() const { return last_; }
  static double Seconds(Duration d) { return std::chrono::duration<double>(d).count(); }

 private:
  const Clock* clock_;
  TimePoint last_;
};

}  // namespace llmd::sched
