// The record of one scheduling decision, enough to explain it to a person. To decide again it takes
// the request, the endpoints' gauges, the seed and the state of the plugins besides.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "llmd/json.h"

namespace llmd::sched {

struct ScoreTrace {
  std::string scorer;  // configured name
  double weight = 1;
  std::vector<double> raw;  // per entry of ProfileTrace::candidates; NaN = not scored
};
struct FilterTrace {
  std::string filter;
  std::vector<int> kept;  // indexes into DecisionTrace::endpoints
};
struct ProfileTrace {
  std::string profile;
  std::vector<FilterTrace> filters;
  std::vector<int> candidates;  // after the filters: indexes into DecisionTrace::endpoints
  std::vector<ScoreTrace> scores;
  std::vector<double> totals;  // per candidate, weighted sum
  std::string picker;
  std::vector<int> picked;  // indexes into DecisionTrace::endpoints, best first
  int tied = 0;             // candidates that shared the best total
  std::string error;
  // What a scorer added to the total of candidate c: weight × raw clamped to 0..1; 0 unscored.
  double Weighted(const ScoreTrace& score, size_t c) const;
  // Total of the picked endpoint less the best total of any other; negative when the picker did not
  // take the best. 0 with fewer than two candidates.
  double Margin() const;
};
struct DecisionTrace {
  std::string request_id, model;
  std::string pool;  // "" where there is only one
  int64_t unix_nanos = 0;
  uint64_t decision_ns = 0;            // time spent deciding
  std::vector<std::string> endpoints;  // "ns/name"
  std::vector<std::string> addresses;  // "ip:port"
  std::vector<double> metrics_age_ms;  // -1 = never scraped
  std::vector<int> stale;              // endpoints whose gauges were too old to count
  std::vector<ProfileTrace> profiles;
  std::string decision_type;  // "decode-only", "prefill-decode"
  int primary = -1;           // index of the endpoint that gets the request
  int denied_status = 0;      // HTTP status when it was refused
  std::string denied_reason;
};

json::Value ToJson(const DecisionTrace& trace);
// What `llmd explain` prints.
std::string ToText(const DecisionTrace& trace);
// One line of a list: who, when, where to, why not.
json::Value Summary(const DecisionTrace& trace);
// The value of the x-llm-d-decision response header: compact JSON in visible ASCII, at most
// `max_bytes` ("" when it does not fit).
std::string ToHeader(const DecisionTrace& trace, size_t max_bytes = 4096);
StatusOr<DecisionTrace> DecisionFromJson(const json::Value& value);

}  // namespace llmd::sched
