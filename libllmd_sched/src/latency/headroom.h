// How far predictions stay from what a request asks for (docs/reference/predicted-latency.md).
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "llmd/sched/latency.h"

namespace llmd::sched::latency {

struct SloTerms {
  double ttft_ms = -1, tpot_ms = -1;  // of the request; negative = none
  double waited_ms = 0;               // of its TTFT budget, spent before this decision
  double factor = 1;                  // sloBufferFactor
};

// Fills headrooms and `valid` from the predicted times. `tightest_tpot_ms` is the strictest TPOT
// SLO running on the endpoint (infinity = none); `tpot_counts` is false for answers that do not
// stream and for endpoints that only prefill.
//   TTFT: SLO − waited − prediction.  TPOT: min(SLO, tightest)·factor − prediction.
// A request without any SLO gets SLOs of 0, which ranks endpoints by time alone; one SLO alone
// leaves the other dimension at 0.
inline void SetHeadroom(const SloTerms& slo, double tightest_tpot_ms, bool tpot_counts,
                        LatencyPrediction& p) {
  const bool none = slo.ttft_ms < 0 && slo.tpot_ms < 0;
  p.valid = std::isfinite(p.ttft_ms) && (!tpot_counts || std::isfinite(p.tpot_ms));
  if (!p.valid) return;
  p.ttft_headroom_ms = none              ? -p.ttft_ms
                       : slo.ttft_ms < 0 ? 0
                                         : slo.ttft_ms - slo.waited_ms - p.ttft_ms;
  if (!tpot_counts) return;
  constexpr double kNone = std::numeric_limits<double>::infinity();
  const double limit = none ? 0 : std::min(slo.tpot_ms < 0 ? kNone : slo.tpot_ms, tightest_tpot_ms);
  p.tpot_headroom_ms = limit == kNone ? 0 : limit * slo.factor - p.tpot_ms;
}

}  // namespace llmd::sched::latency
