// Plugins' time into their histograms.
#pragma once

#include <chrono>

#include "llmd/clock.h"
#include "llmd/metrics.h"

namespace llmd::sched {

// Chains one clock reading per plugin into their duration histograms. The clock outlives it.
class Stopwatch {
 public:
  explicit Stopwatch(const Clock& clock) : clock_(&clock), last_(clock.Now()) {}

  void Lap(Histogram* histogram) {
    if (histogram == nullptr) return;
    const TimePoint now = clock_->Now();
    histogram->Observe(std::chrono::duration<double>(now - last_).count());
    last_ = now;
  }

 private:
  const Clock* clock_;
  TimePoint last_;
};

}  // namespace llmd::sched
