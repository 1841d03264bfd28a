#include "llmd/sched/decision_log.h"

namespace llmd::sched {

json::Value ToLogJson(const DecisionTrace& trace) {
  json::Value out = ToJson(trace);
  out.Erase("decision_ns");
  return out;
}

std::string ToLogLine(const DecisionTrace& trace) {
  return ToLogJson(trace).Dump();
}

}  // namespace llmd::sched
