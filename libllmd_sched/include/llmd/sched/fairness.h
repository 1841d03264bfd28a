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

// A flow of one band: the requests of one fairness id. Lives as long as it has requests waiting or
// in flight, and some minutes after. What stands under `scratch` belongs to the band's policy.
struct FlowState {
  std::string id;
  const QueuedItem* head = nullptr;  // goes next; null = nothing waits
  struct {
    size_t position = SIZE_MAX;  // in the policy's heap
    FlowState *previous = nullptr, *next = nullptr;
    double value = 0, expected_output = 0, weight = 1;
    bool known = false;  // weight was looked up
  } scratch;
};

// What a request came to; 0 where the answer did not say.
struct FlowUsage {
  double prompt_tokens = 0, output_tokens = 0;
  bool known = false;  // false: no usage was reported
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
  // The member whose head is dispatched now; *charge is what it costs, given back in Completed.
  // Never called without members.
  virtual FlowState& Next(TimePoint now, double* charge) noexcept = 0;
  // A dispatched request ended, whether its flow has others waiting or not.
  virtual void Completed(FlowState& flow, TimePoint now, double charge,
                         const FlowUsage& usage) noexcept {}
};

class FairnessPolicy : public virtual Plugin {
 public:
  // `ordering` is the band's and outlives what is returned.
  virtual std::unique_ptr<FairnessBand> MakeBand(const OrderingPolicy& ordering) const noexcept = 0;
  // Completed needs the tokens of the answer, so that response bodies must be read.
  virtual bool wants_usage() const { return false; }
};

}  // namespace llmd::sched
