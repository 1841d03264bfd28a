#include "llmd/sched/testing/properties.h"

namespace llmd::sched::testing {

std::string Report::ToText() const {
  std::string out;
  for (const Violation& v : violations)
    out += "plugin '" + plugin + "', property '" + v.property + "': " + v.detail + "\n";
  for (const std::string& note : notes) out += "plugin '" + plugin + "', note on " + note + "\n";
  return out;
}

Status Report::ToStatus() const {
  return ok() ? OkStatus() : FailedPrecondition(ToText());
}

}  // namespace llmd::sched::testing
