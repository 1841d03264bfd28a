// When conversations begin, and in which stage: the plan of an open loop or a trace, known before
// the first request is sent. Each loop walks the whole plan and keeps its share, so that the plan
// does not depend on the number of loops. Thread-compatible.
#pragma once

#include <cstdint>
#include <optional>

#include "cli/bench/options.h"
#include "cli/bench/random.h"
#include "cli/bench/trace_file.h"

namespace llmd::bench {

struct Arrival {
  int64_t at_ns = 0;   // from the run's start
  uint64_t index = 0;  // of the conversation
  uint32_t stage = 0;
};

class Arrivals {
 public:
  // For every load but kClosed. `trace` is needed for kTrace; both outlive this. Gives every
  // `of`-th arrival, from `share` on.
  Arrivals(const Options& options, const Trace* trace, uint64_t share, uint64_t of);
  // In the order of time; nothing at the end of the plan.
  std::optional<Arrival> Next();

 private:
  std::optional<Arrival> NextOfAll();
  std::optional<Arrival> NextOfTrace();
  std::optional<Arrival> NextOfStages();

  const Options& options_;
  const Trace* trace_;
  uint64_t share_, of_;
  Random random_;
  uint64_t index_ = 0;  // of the next arrival
  size_t stage_ = 0;
  uint64_t in_stage_ = 0;  // arrivals so far
  double at_s_ = 0;        // in the stage
  int64_t stage_start_ = 0;
};

}  // namespace llmd::bench
