// Usage limits say up to which saturation each priority band may dispatch.
#pragma once

#include <span>

#include "llmd/sched/plugin.h"

namespace llmd::sched {

class UsageLimitPolicy : public virtual Plugin {
 public:
  // Writes ceilings[i], the saturation at which the band of priorities[i] stops dispatching; 0 = it
  // must not dispatch. `priorities` are all bands, descending; both have the same size. Called once
  // for each decision.
  virtual void Ceilings(double saturation, std::span<const int> priorities,
                        std::span<double> ceilings) = 0;
  // The same arguments always give the same ceilings. Unless it says so it is asked again every
  // 10 ms while requests wait.
  virtual bool repeats() const { return false; }
};

}  // namespace llmd::sched
