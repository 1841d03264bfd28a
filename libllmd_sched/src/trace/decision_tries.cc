#include "llmd/sched/decision_tries.h"

#include <cstdio>
#include <ctime>

namespace llmd::sched {
namespace {

// "16:15:04.982" in UTC.
std::string TimeOfDay(int64_t unix_nanos) {
  const std::time_t seconds = unix_nanos / 1'000'000'000;
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  char text[32];
  std::snprintf(text, sizeof(text), "%02d:%02d:%02d.%03d", utc.tm_hour, utc.tm_min, utc.tm_sec,
                static_cast<int>(unix_nanos / 1'000'000 % 1000));
  return text;
}

std::string Outcome(const DecisionTrace& t) {
  if (t.denied_status != 0)
    return "refused with " + std::to_string(t.denied_status) + ": " + t.denied_reason;
  if (t.primary < 0) return "no endpoint";
  return t.decision_type + (t.decision_type.empty() ? "-> " : " -> ") + t.endpoints[t.primary] +
         " (" + t.addresses[t.primary] + ")";
}

}  // namespace

json::Value TriesToJson(std::span<const DecisionTrace> tries) {
  json::Value out = ToJson(tries.back());
  if (tries.size() == 1) return out;
  json::Array earlier;
  for (const DecisionTrace& t : tries.first(tries.size() - 1)) earlier.push_back(ToJson(t));
  out.Set("earlier", std::move(earlier));
  return out;
}

StatusOr<std::vector<DecisionTrace>> TriesFromJson(const json::Value& value) {
  std::vector<DecisionTrace> out;
  for (const json::Value& one : value["earlier"].AsArray()) {
    LLMD_ASSIGN_OR_RETURN(DecisionTrace trace, DecisionFromJson(one));
    out.push_back(std::move(trace));
  }
  LLMD_ASSIGN_OR_RETURN(DecisionTrace last, DecisionFromJson(value));
  out.push_back(std::move(last));
  return out;
}

std::string TriesToText(std::span<const DecisionTrace> tries) {
  if (tries.size() == 1) return ToText(tries[0]);
  const std::string of = " of " + std::to_string(tries.size());
  std::string out =
      "request " + tries[0].request_id + " was tried " + std::to_string(tries.size()) + " times\n";
  for (size_t i = 0; i < tries.size(); ++i) {
    out += "  try " + std::to_string(i + 1) + of + " at " + TimeOfDay(tries[i].unix_nanos) + ": " +
           Outcome(tries[i]) + "\n";
  }
  for (size_t i = 0; i < tries.size(); ++i)
    out += "\ntry " + std::to_string(i + 1) + of + ", " + ToText(tries[i]);
  return out;
}

}  // namespace llmd::sched
