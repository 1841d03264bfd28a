// Decides which requests in flight to take back so that a blocked band of higher priority can
// dispatch (enableEviction). Sizes in units of the saturation gauge: each victim is credited the
// mean share of a request, saturation / in flight, and nothing more is taken back until the ones
// before have ended and their room had time to show. Source: llm-d's design of in-flight eviction
// (docs/reference/flow-control.md, "Eviction").
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "flow/flow_metrics.h"
#include "flow/queue.h"
#include "llmd/sched/eviction.h"

namespace llmd::sched {

// A blocked band with requests waiting.
struct Demand {
  int priority = 0;
  double ceiling = 0;
};

// Guarded by the controller's lock.
class Evictor {
 public:
  static constexpr size_t kMaxVictims = 2;  // per decision
  static constexpr Duration kConfirmationTimeout = std::chrono::seconds(10);

  // `reaction` = how long after a request's end its room is sure to show in the saturation.
  Evictor(const EvictionFilter& filter, const EvictionOrder& order, Duration reaction,
          FlowMetrics& metrics);

  // What the one before it has taken back, and waits for.
  void Carry(const Evictor& before) { debits_ = before.debits_; }
  // The item is in flight and can be taken back.
  void Track(FlowItem& item);
  // The item's request ended, by itself or because it was taken back.
  void Ended(FlowItem& item, TimePoint now);

  // Something was taken back whose room may not show yet.
  bool waiting() const { return !debits_.empty(); }

  // The victims for the first of `demands` (descending priority) that outranks one, best first. The
  // caller revokes them. `in_flight` counts all dispatched requests.
  std::span<FlowItem* const> Choose(double saturation, std::span<const Demand> demands,
                                    size_t in_flight, TimePoint now);

 private:
  struct Debit {
    uint64_t ticket;
    double credit;
    TimePoint issued, retired = TimePoint::max();
  };
  struct InVictims {
    size_t& operator()(FlowItem& item) const { return item.in_victims; }
  };
  struct ByOrder {
    const EvictionOrder* order;
    bool operator()(const FlowItem& a, const FlowItem& b) const {
      return order->Before(a.in_flight, b.in_flight);
    }
  };
  // Retires what takes too long, drops what had its time.
  void Settle(TimePoint now);
  const Demand* Served(double saturation, std::span<const Demand> demands) const;

  const EvictionFilter& filter_;
  const Duration reaction_;
  FlowMetrics& metrics_;
  IndexedHeap<FlowItem, InVictims, ByOrder> victims_;
  std::vector<Debit> debits_;
  std::vector<FlowItem*> chosen_;
};

}  // namespace llmd::sched
