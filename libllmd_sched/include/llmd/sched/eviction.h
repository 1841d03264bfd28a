// With enableEviction, requests in flight may be taken back so that a higher priority band can
// dispatch: a filter says which ones may, an order which one goes first.
#pragma once

#include <cstdint>

#include "llmd/clock.h"
#include "llmd/sched/plugin.h"

namespace llmd::sched {

// A dispatched request. Its attributes do not change while it is in flight.
struct InFlightItem {
  uint64_t sequence = 0;  // order of arrival
  int priority = 0;
  TimePoint dispatched{};
};

class EvictionFilter : public virtual Plugin {
 public:
  virtual bool Revocable(const InFlightItem& item) const noexcept = 0;
};

class EvictionOrder : public virtual Plugin {
 public:
  // A strict weak order: true when `a` is taken back before `b`.
  virtual bool Before(const InFlightItem& a, const InFlightItem& b) const noexcept = 0;
};

}  // namespace llmd::sched
