// The record of one scheduling decision: enough to explain it to a person and to replay it byte for
// byte.
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
};
struct DecisionTrace {
  std::string request_id, model;
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
StatusOr<DecisionTrace> DecisionFromJson(const json::Value& value);

}  // namespace llmd::sched
