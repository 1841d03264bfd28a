// The decision log: a trace as JSON without what the machine measured of itself, so that two runs
// with the same configuration, seed, clock and calls give the same bytes
// (docs/reference/determinism.md).
#pragma once

#include <string>

#include "llmd/json.h"
#include "llmd/sched/decision.h"

namespace llmd::sched {

// ToJson(trace) less decision_ns. DecisionFromJson reads it; the duration is 0 then.
json::Value ToLogJson(const DecisionTrace& trace);
// That as compact JSON on one line, without a newline. Numbers are the shortest text that reads
// back to the same double, whatever the locale; NaN is null.
std::string ToLogLine(const DecisionTrace& trace);

}  // namespace llmd::sched
