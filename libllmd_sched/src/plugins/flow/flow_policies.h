// The usage limit a configuration names; read by the flow controller.
#pragma once

#include "llmd/sched/plugin.h"

namespace llmd::sched {

class UsageLimitPolicy : public virtual Plugin {
 public:
  // Saturation at which a band stops dispatching.
  virtual double Ceiling(int priority) const = 0;
};

}  // namespace llmd::sched
