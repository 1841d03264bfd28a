// Plugins' time into their histograms.
#pragma once

#include <chrono>

#include "llmd/metrics.h"

namespace llmd::sched {

// Chains one clock reading per plugin into their duration histograms.
class Stopwatch {
 public:
  void Lap(Histogram* histogram) {
    if (histogram == nullptr) return;
    const auto now = std::chrono::steady_clock::now();
    histogram->Observe(std::chrono::duration<double>(now - last_).count());
    last_ = now;
  }

 private:
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

}  // namespace llmd::sched
