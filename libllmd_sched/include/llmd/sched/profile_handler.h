// Profile handlers decide which profiles run for a request and what their results mean.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "llmd/sched/endpoint.h"
#include "llmd/sched/plugin.h"

namespace llmd::sched {

// Runs profiles of the graph on the current request; results stay valid until the request ends.
class ProfileRunner {
 public:
  virtual ~ProfileRunner() = default;
  // Index of the profile, or -1.
  virtual int Find(std::string_view profile) const = 0;
  virtual int count() const = 0;
  // Picked snapshot indexes, best first; empty when the profile has no endpoint.
  virtual const std::vector<uint32_t>& Run(int profile) = 0;
  virtual const Snapshot& snapshot() const = 0;
};

// Snapshot indexes of the outcome. `decision_type` and `error` are literals of the handler.
struct ScheduleOutcome {
  int primary_profile = -1;       // of the runner; -1 with `error`
  std::vector<uint32_t> primary;  // best first
  int prefill_profile = -1, encode_profile = -1;
  std::vector<uint32_t> prefill, encode;  // empty = stage not used
  std::string_view decision_type = "decode-only";
  std::string_view error;
  int error_status = 0;       // HTTP status of `error`; 0 = 429 when saturated, else 503
  uint16_t primary_port = 0;  // sent there instead of the endpoint's own port; 0 = its own
  void Clear();
};

class ProfileHandler : public virtual Plugin {
 public:
  virtual void Schedule(RequestContext& request, ProfileRunner& runner,
                        ScheduleOutcome& outcome) = 0;
  // Profiles it will run; names that do not exist are configuration errors.
  virtual std::vector<std::string> Profiles() const { return {}; }
};

}  // namespace llmd::sched
