// vLLM's periodic line of throughput, queue and cache figures.
#pragma once

#include <string>

#include "llmd/clock.h"
#include "llmd/engine/request.h"

namespace llmd::services {

// Remembers the totals of the last line. Thread-compatible.
class StatsLog {
 public:
  // "Engine 000: Avg prompt throughput: 0.0 tokens/s, …" for the time since the last line.
  std::string Line(const engine::EngineStats& stats, Duration since_last);

 private:
  engine::EngineStats last_;
};

}  // namespace llmd::services
