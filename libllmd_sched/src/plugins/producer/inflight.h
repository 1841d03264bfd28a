// Our own in-flight counts per endpoint, readable outside a request.
#pragma once

#include "llmd/sched/plugin.h"

namespace llmd::sched {

class InFlightCounts : public virtual Plugin {
 public:
  virtual double Requests(uint32_t slot) const = 0;
  virtual double Tokens(uint32_t slot) const = 0;
};

}  // namespace llmd::sched
