// Fairness policies choose among the flows of one priority band.
#pragma once

#include <span>
#include <string>

#include "llmd/sched/ordering.h"
#include "llmd/sched/plugin.h"

namespace llmd::sched {

struct FlowView {
  const std::string* flow = nullptr;  // fairness id
  const QueuedItem* head = nullptr;   // never null: empty flows are not offered
};

class FairnessPolicy : public virtual Plugin {
 public:
  // Index of the flow whose head goes next. `flows` is sorted by flow id and never empty; `last` is
  // the id served last.
  virtual size_t Next(std::span<const FlowView> flows, const std::string& last,
                      const class OrderingPolicy& ordering) = 0;
};

}  // namespace llmd::sched
