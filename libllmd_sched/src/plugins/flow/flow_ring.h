// Where fairness policies keep the flows of a band: in a heap or in a ring.
#pragma once

#include <cstddef>
#include <utility>

#include "llmd/sched/fairness.h"

namespace llmd::sched {

struct FlowPosition {
  size_t& operator()(FlowState& flow) const { return flow.scratch.position; }
};

// Flows in a circle; newcomers go behind all others, seen from the current one. O(1) throughout.
class FlowRing {
 public:
  FlowState* current() const { return current_; }
  void Advance() { current_ = current_->scratch.next; }
  void Add(FlowState& flow) {
    if (current_ == nullptr) {
      current_ = flow.scratch.previous = flow.scratch.next = &flow;
      return;
    }
    flow.scratch.next = current_;
    flow.scratch.previous = std::exchange(current_->scratch.previous, &flow);
    flow.scratch.previous->scratch.next = &flow;
  }
  void Remove(FlowState& flow) {
    FlowState* const next = flow.scratch.next;
    next->scratch.previous = flow.scratch.previous;
    flow.scratch.previous->scratch.next = next;
    if (current_ == &flow) current_ = next == &flow ? nullptr : next;
  }

 private:
  FlowState* current_ = nullptr;
};

}  // namespace llmd::sched
