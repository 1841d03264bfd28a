// What the flow controller keeps: requests in slots, flows that queue them, bands that hold flows.
// All thread-compatible; guarded by the controller's lock.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "config/graph.h"
#include "flow/indexed_heap.h"
#include "llmd/sched/eviction.h"
#include "llmd/sched/fairness.h"

namespace llmd::sched {

struct FlowSeries;
struct Band;
struct FlowQueue;
struct FlowResult;

// A request from its arrival in flow control to its end. One slot, one ticket.
struct FlowItem : QueuedItem {
  enum class State : uint8_t { kFree, kQueued, kInFlight };
  uint32_t slot = 0, generation = 1;
  State state = State::kFree;
  size_t in_flow = kNotInHeap, in_expiry = kNotInHeap, in_victims = kNotInHeap;
  FlowQueue* flow = nullptr;
  FlowItem *older = nullptr, *newer = nullptr;  // queued in the same band, by arrival
  TimePoint own_deadline = TimePoint::max();    // of the client's own TTL
  TimePoint regime_start{};  // when the pool last became empty or usable, or the arrival
  TimePoint expires{};
  FlowCharge charge;
  bool held = false;  // FlowController::Hold
  InFlightItem in_flight;
  const FlowSeries* series = nullptr;
  std::function<void(const FlowResult&)> resume;
  std::function<void()> revoke;  // in flight; null = it cannot be taken back

  uint64_t ticket() const { return uint64_t{generation} << 32 | slot; }
};

// Slots that are used again; never shrinks. A ticket of an earlier use finds nothing; none is 0.
class FlowItems {
 public:
  FlowItem& Take();
  void Free(FlowItem& item);
  // The item in that state, or null.
  FlowItem* Find(uint64_t ticket, FlowItem::State state);
  // Calls `each` for every item in that state.
  template <typename Each>
  void ForEach(FlowItem::State state, Each each) {
    for (FlowItem& item : items_) {
      if (item.state == state) each(item);
    }
  }

 private:
  std::deque<FlowItem> items_;
  std::vector<uint32_t> free_;
};

struct InFlow {
  size_t& operator()(FlowItem& item) const { return item.in_flow; }
};
struct ByOrdering {
  const OrderingPolicy* ordering;
  bool operator()(const FlowItem& a, const FlowItem& b) const { return ordering->Before(a, b); }
};

struct FlowQueue : FlowState {
  FlowQueue(Band& b, const OrderingPolicy& ordering) : band(&b), items(ByOrdering{&ordering}) {}
  Band* const band;
  IndexedHeap<FlowItem, InFlow, ByOrdering> items;
  size_t in_flight = 0;
  // Idle flows of the band, longest idle first.
  FlowQueue *idle_before = nullptr, *idle_after = nullptr;
  TimePoint idle_since{};
  bool idle = false;
};

// The flows of one priority. Flows are found by id; at most kMaxFlows of them, the longest idle one
// makes room, and when all are busy newcomers share the flow "other".
struct Band {
  static constexpr size_t kMaxFlows = 4096;
  static constexpr std::string_view kOther = "other";

  Band(const BandConfig& c, bool configured_band);
  Band(const Band&) = delete;
  Band& operator=(const Band&) = delete;

  FlowQueue& FlowOf(std::string_view id);
  void Push(FlowItem& item, FlowQueue& flow);
  // Takes a queued item out; its flow stays.
  void Remove(FlowItem& item, TimePoint now);
  // The next item by fairness and ordering, still in its queue; its charge is set.
  FlowItem& Next(TimePoint now);
  // A dispatched item of `flow` ended.
  void Ended(FlowQueue& flow, TimePoint now);
  // Drops flows that were idle before `limit`.
  void CollectIdle(TimePoint limit);

  BandConfig config;  // its policies do not change
  bool configured;    // stands in the configuration: is never collected
  std::unique_ptr<FairnessBand> fairness;
  size_t requests = 0;  // queued
  double bytes = 0;
  FlowItem *oldest = nullptr, *newest = nullptr;
  TimePoint last_used{};
  size_t flow_count() const { return flows_.size(); }
  // By the time since which they are idle, then by id.
  std::vector<const FlowQueue*> Flows() const;
  // What the policies know of a flow of the band that this one replaces. Among the bounds on flows
  // it keeps to those that wait, are in flight, or have room.
  void Carry(const FlowQueue& before, TimePoint now);

 private:
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view s) const { return std::hash<std::string_view>()(s); }
  };
  FlowQueue& NewFlow(std::string_view id);
  void MarkIdle(FlowQueue& flow, TimePoint now);
  void Unidle(FlowQueue& flow);
  void Drop(FlowQueue& flow);

  std::unordered_map<std::string, std::unique_ptr<FlowQueue>, Hash, std::equal_to<>> flows_;
  FlowQueue *idle_first_ = nullptr, *idle_last_ = nullptr;
};

}  // namespace llmd::sched
