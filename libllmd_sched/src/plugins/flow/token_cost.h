// What the token-weighted fairness policies share: a weight by fairness id, what a request costs,
// and the accounts of flows.
//
// While a request is in flight its flow is charged what is expected of it, at its end what it came
// to. Expectations are learned, since estimates may be off by any factor. A flow that begins to
// wait starts beside the least served of those that wait, which is taken to have had what its
// requests usually come to, whatever is expected of those in flight: from then on it is charged no
// more for them. What that one had dispatched while nobody else waited is no matter between the
// two: if it turns out cheaper or dearer, neither is moved, so that a refund does not become
// credit. No settlement takes a flow below where it began to wait: one held back by its own
// expectation gets what it missed since then and no more.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "flow/indexed_heap.h"
#include "llmd/sched/fairness.h"
#include "plugins/flow/flow_ring.h"

namespace llmd::sched {

struct TokenCost {
  std::map<std::string, double, std::less<>> weights;
  double default_weight = 1, input = 1, output = 2, expected_output = 128;

  double WeightOf(const std::string& id) const;
  // Of a request before it runs: its prompt as estimated, corrected by what the flow's estimates
  // were worth, and the flow's usual output.
  double Expect(const TokenAccount& account, const QueuedItem& item) const;
  // Of a request that has ended; `charge` when it did not say, 0 when it never ran.
  double Measure(const FlowUsage& usage, double charge) const;
};

// Reads `weights`, `defaultWeight`, `inputTokenWeight`, `outputTokenWeight` and
// `expectedOutputTokens`.
TokenCost ReadTokenCost(Params& params);
// Their help.
std::vector<ParamHelp> TokenCostHelp();

// A band by accounts, with the flows that wait by level; the order in which they are served is the
// policy's. scratch.value is the level under which a flow stands there.
class TokenBand : public FairnessBand {
 public:
  explicit TokenBand(const TokenCost& cost) : cost_(cost) {}
  void Add(FlowState& flow) noexcept override;
  void Remove(FlowState& flow) noexcept override;
  void HeadChanged(FlowState& flow) noexcept override { waiting_.Update(&flow); }
  void Completed(FlowState& flow, const QueuedItem& item, TimePoint now, const FlowCharge& charge,
                 const FlowUsage& usage) noexcept override;
  void Follow(const FairnessBand& before) noexcept override;
  void Carry(FlowState& flow, const FlowState& before) noexcept override;

 protected:
  const TokenCost& cost() const { return cost_; }
  size_t waiting() const { return waiting_.size(); }
  FlowState& LeastServed() const { return *waiting_.top(); }
  // The head of a member is dispatched.
  FlowCharge Charge(FlowState& flow);
  // The level of a member has changed.
  virtual void Moved(FlowState& flow) noexcept {}

 private:
  // Ties go by arrival.
  struct ByLevel {
    bool operator()(const FlowState& a, const FlowState& b) const {
      return a.scratch.value != b.scratch.value ? a.scratch.value < b.scratch.value
                                                : a.head->sequence < b.head->sequence;
    }
  };
  // Looks the weight up once.
  void Know(TokenAccount& account, const std::string& id) const;
  void Move(FlowState& flow) noexcept;
  // Somebody is put where the flow stands, or may be later.
  void Rely(TokenAccount& account);

  const TokenCost& cost_;
  IndexedHeap<FlowState, FlowPosition, ByLevel> waiting_;
  double last_ = 0;  // level of the last flow to leave an emptied band
  // Flows put beside another one, and levels relied on; of those the last by which a flow was put
  // at last_. And what both were in the band this one follows.
  uint64_t events_ = 0, beside_last_ = 0;
  uint64_t events_before_ = 0, beside_last_before_ = 0;
};

}  // namespace llmd::sched
