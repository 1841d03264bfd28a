// The usage limit a configuration names; read by the flow controller.
#pragma once

#include <span>

#include "llmd/sched/plugin.h"

namespace llmd::sched {

class UsageLimitPolicy : public virtual Plugin {
 public:
  // Saturation at which the band of priorities[rank] stops dispatching; `priorities` are all bands,
  // descending.
  virtual double Ceiling(size_t rank, std::span<const int> priorities) const = 0;
};

}  // namespace llmd::sched
