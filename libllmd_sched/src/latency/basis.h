// The terms of the two latency models: products of features that stand for work an engine does one
// after another. All are ≥ 0 and of the order of 1, whatever an endpoint reports.
//
// TTFT adds up the prompt's own uncached tokens (and their attention over the whole prompt), the
// prompt tokens ahead of it, the queue, each of these slowed by what decodes beside it, and the
// media to encode. TPOT adds up a step's fixed part, its sequences, their contexts, and prefill
// chunks between.
#pragma once

#include <array>
#include <cstddef>

#include "llmd/sched/latency.h"

namespace llmd::sched::latency {

inline constexpr size_t kTerms = 19;
using Terms = std::array<double, kTerms>;

enum class Target { kTtft, kTpot };

// NaN and negative features count as 0, absurd ones are cut. Unused terms are 0.
Terms Expand(Target target, const LatencyFeatures& features);

}  // namespace llmd::sched::latency
