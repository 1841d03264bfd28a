// Fairness policies choose among the flows of one priority band. A policy keeps a structure of its
// own per band (FairnessBand), so that a choice need not look at every flow.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "llmd/sched/ordering.h"
#include "llmd/sched/plugin.h"

namespace llmd::sched {

// What the token-weighted policies know of a flow; it goes with the flow through a reload from one
// of them to another. `settled`, `floor` and levels are tokens over the flow's weight.
struct TokenAccount {
  double settled = 0;      // what its requests came to that have ended
  double outstanding = 0;  // tokens expected of those in flight
  double in_flight = 0;    // requests
  double floor = 0;        // the band's level when it last began to wait
  double expected_output = 0;
  // Prompt tokens of late requests, as estimated and as measured: estimates are corrected by this.
  double estimated = 0, measured = 0;
  double mean = 0;  // of what its late requests came to; 0 = not known
  // By the policy's count of events: when another flow was last put beside this one, and when the
  // level was last relied on. Of the requests in flight then, `relied` still are; each of them
  // counts `share` tokens.
  uint64_t beside = 0, relied_at = 0;
  double relied = 0, share = 0;
  double weight = 1;
  bool known = false;  // the weight was looked up
  // What it has had, if those in flight come to what is expected.
  double level() const { return settled + outstanding / weight; }
};

// What a request's flow was charged at its dispatch.
struct FlowCharge {
  double tokens = 0;
  uint64_t event = 0;    // the last one before it, by the policy's count
  bool charged = false;  // by a policy that keeps accounts
  bool alone = false;    // no other flow waited
};

// A flow of one band: the requests of one fairness id. Lives as long as it has requests waiting or
// in flight, and some minutes after. What stands under `scratch` belongs to the band's policy.
struct FlowState {
  std::string id;
  const QueuedItem* head = nullptr;  // goes next; null = nothing waits
  struct {
    size_t position = SIZE_MAX;  // in the policy's heap
    FlowState *previous = nullptr, *next = nullptr;
    double value = 0;  // the key there
  } scratch;
  TokenAccount account;
};

// What a request came to; 0 where the answer did not say.
struct FlowUsage {
  double prompt_tokens = 0, output_tokens = 0;
  bool known = false;  // false: no usage was reported
  bool ran = true;     // false: it was refused before an endpoint had it, and cost nothing
};

// The flows of one band with requests waiting. Called under the controller's lock, by one thread at
// a time, in the middle of the queues' work: must not call back, and cannot fail.
class FairnessBand {
 public:
  virtual ~FairnessBand() = default;
  // The flow got its first waiting request / lost its last one. It outlives its membership.
  virtual void Add(FlowState& flow) noexcept = 0;
  virtual void Remove(FlowState& flow) noexcept = 0;
  // Another request is at the head of a member.
  virtual void HeadChanged(FlowState& flow) noexcept {}
  // The member whose head is dispatched now; *charge is for Completed. Never called without
  // members.
  virtual FlowState& Next(TimePoint now, FlowCharge* charge) noexcept = 0;
  // A dispatched request, `item`, ended, whether its flow has others waiting or not.
  virtual void Completed(FlowState& flow, const QueuedItem& item, TimePoint now,
                         const FlowCharge& charge, const FlowUsage& usage) noexcept {}
  // This band takes the place of another one, of other policies: called before flows are added.
  virtual void Follow(const FairnessBand& before) noexcept {}
  // `flow`, whether it waits by now or not, was `before` there.
  virtual void Carry(FlowState& flow, const FlowState& before) noexcept {}
};

class FairnessPolicy : public virtual Plugin {
 public:
  // `ordering` is the band's and outlives what is returned.
  virtual std::unique_ptr<FairnessBand> MakeBand(const OrderingPolicy& ordering) const noexcept = 0;
  // Completed needs the tokens of the answer, so that response bodies must be read.
  virtual bool wants_usage() const { return false; }
};

}  // namespace llmd::sched
