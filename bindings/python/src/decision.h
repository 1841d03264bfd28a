// llmd.Decision.
#pragma once

#include <optional>
#include <string>

#include "llmd/sched/scheduler.h"

namespace llmd::python {

// The trace is built when someone first asks. Touched with the GIL held only.
struct PyDecision {
  sched::Decision decision;
  mutable std::optional<sched::DecisionTrace> trace;
  const sched::DecisionTrace& Trace() const {
    if (!trace) trace = decision.Trace();
    return *trace;
  }
};

}  // namespace llmd::python
