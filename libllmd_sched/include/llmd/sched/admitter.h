// Admitters may refuse a request before it is scheduled, with a status of their own.
#pragma once

#include <string>

#include "llmd/sched/endpoint.h"
#include "llmd/sched/plugin.h"

namespace llmd::sched {

struct AdmissionDenied {
  int http_status = 0;  // 0 = admitted
  std::string message, dropped_reason;
};

class Admitter : public virtual Plugin {
 public:
  virtual AdmissionDenied Admit(RequestContext& request, const Snapshot& snapshot) = 0;
};

}  // namespace llmd::sched
