// What every filter, scorer and picker must hold, whatever it computes. Each check builds the
// plugin afresh, so that state left by one does not hide a fault from the next.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "llmd/sched/plugin.h"
#include "llmd/sched/testing/pool.h"
#include "llmd/sched/testing/request.h"
#include "llmd/status.h"

namespace llmd::sched::testing {

struct PropertyOptions {
  std::string parameters = "{}";  // of the plugin, YAML or JSON
  // Asked of every pool; facts that the plugin reads and this lacks are made up.
  FakeRequest request = FakeRequest::Completions(std::string(900, 'x'));
  std::function<std::vector<EndpointState>(size_t count, uint64_t seed)> pool = MixedPool;
  int threads = 4;  // of the thread check; 0 leaves it out
  int calls_per_thread = 50;
  double tolerance = 1e-12;  // between scores that must be equal
  // Allocations this thread has made so far (allocation_counter.h); empty leaves the check out.
  std::function<uint64_t()> allocations;
  // Names of properties not to check, for plugins that break one by design.
  std::vector<std::string> except = {};
};

struct Violation {
  std::string property, detail;  // detail: on which input, what was expected
};

struct Report {
  std::string plugin;
  std::vector<std::string> checked;  // names of properties
  std::vector<Violation> violations;
  std::vector<std::string> notes;  // what was not, or not fully, checked
  bool ok() const { return violations.empty(); }
  std::string ToText() const;  // one line a violation, one line a note
  Status ToStatus() const;     // FAILED_PRECONDITION with the text
};

// Scorers: "length" (writes its scores, all of them and nothing else), "nan" (none is NaN where the
// gauges are known, unless left untouched), "range" (each score in [0, 1] or NaN), "size" (0, 1 and
// 1,000 endpoints), "order" of candidates and endpoints changes no score, "unlisted" (endpoints
// that are no candidates change no score), "repeats" (the same call on two new objects agrees),
// "calls" (so do many calls of one object), "clock" (the machine's clock is not read; not checked
// under sanitizers), "input" (request, snapshot and candidates stay as they are), "unknown"
// (endpoints without gauges spoil no other's score), "threads" (calls on several threads agree with
// one alone), "allocations" (none after three calls). An exception violates the property being
// checked.
Report CheckScorer(const PluginRegistry* registry, std::string_view type,
                   const PropertyOptions& options = {});
// Filters: "subset" (candidates only, none twice, in their order), "size", "order", "unlisted",
// "repeats", "calls", "clock", "input" (request and snapshot), "unknown" (any answer, but no
// crash), "threads", "allocations".
Report CheckFilter(const PluginRegistry* registry, std::string_view type,
                   const PropertyOptions& options = {});
// Pickers: "subset" (candidates only, none twice, at least one of any), "size", "repeats" (for a
// seed), "calls" (so do many calls of one object), "clock", "input" (request but for its random
// numbers, snapshot, candidates and totals), "ties" (every one of four equals is picked by some
// seed), "threads", "allocations".
Report CheckPicker(const PluginRegistry* registry, std::string_view type,
                   const PropertyOptions& options = {});

}  // namespace llmd::sched::testing
