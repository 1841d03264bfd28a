// Deficit round robin (Shreedhar and Varghese, "Efficient Fair Queuing Using Deficit Round-Robin",
// 1996) over tokens instead of bytes: in its turn a flow gets quantum x weight more credit and goes
// on while its credit covers the next request. Credit is what a flow's level lacks to that of the
// round, which all have in common: so there is none to be had from a request that was charged too
// much, and none to be saved up.
#include <algorithm>
#include <cmath>

#include "llmd/sched/fairness.h"
#include "plugins/builtin.h"
#include "plugins/common.h"
#include "plugins/flow/flow_ring.h"
#include "plugins/flow/token_cost.h"

namespace llmd::sched {
namespace {

struct Settings {
  TokenCost cost;
  double quantum = 0;
};

class DeficitBand final : public TokenBand {
 public:
  explicit DeficitBand(const Settings& settings) : TokenBand(settings.cost), s_(settings) {}

  void Add(FlowState& flow) noexcept override {
    TokenBand::Add(flow);
    ring_.Add(flow);
    Moved(flow);
  }
  void Remove(FlowState& flow) noexcept override {
    ring_.Remove(flow);
    TokenBand::Remove(flow);
  }
  FlowState& Next(TimePoint, FlowCharge* charge) noexcept override {
    for (size_t visited = 0;; ++visited) {
      FlowState& flow = *ring_.current();
      if (Needs(flow) <= round_) {
        *charge = Charge(flow);
        return flow;
      }
      ring_.Advance();
      if (visited == waiting()) {
        NextRound();
        visited = 0;
      }
    }
  }

 protected:
  // No flow is left more than a quantum behind the round: it would be served alone for long.
  void Moved(FlowState& flow) noexcept override {
    round_ = std::min(round_, flow.account.level() + s_.quantum);
  }

 private:
  // The level of the round in which the head of the flow can be paid for.
  double Needs(const FlowState& flow) const {
    return flow.account.level() + cost().Expect(flow.account, *flow.head) / flow.account.weight;
  }
  // Nobody could pay: all rounds until somebody can, at once.
  void NextRound() {
    double least = INFINITY;
    const FlowState* const first = ring_.current();
    do {
      least = std::min(least, Needs(*ring_.current()));
      ring_.Advance();
    } while (ring_.current() != first);
    const double rounds = std::max(1.0, std::ceil((least - round_) / s_.quantum));
    round_ = std::max(least, round_ + rounds * s_.quantum);
  }

  const Settings& s_;
  FlowRing ring_;
  double round_ = INFINITY;  // tokens over weight that all may have had by now
};

class DeficitRoundRobin final : public FairnessPolicy {
 public:
  explicit DeficitRoundRobin(Settings settings) : s_(std::move(settings)) {}
  std::unique_ptr<FairnessBand> MakeBand(const OrderingPolicy&) const noexcept override {
    return std::make_unique<DeficitBand>(s_);
  }
  bool wants_usage() const override { return true; }

 private:
  const Settings s_;
};

}  // namespace

Status RegisterDeficitRoundRobinFairnessPolicy(PluginRegistry& registry) {
  std::vector<ParamHelp> help = TokenCostHelp();
  help.push_back({"quantumTokens", "256", "credit of a flow of weight 1 in each of its turns"});
  return AddPlugin(
      registry,
      {.type = "deficit-round-robin-fairness-policy",
       .kind = "fairness policy",
       .help = "Tokens shared by weight, in turns: a request is charged its estimated prompt and "
               "output tokens, corrected by what the flow's were worth, while it is in flight, and "
               "what it came to when it ends.",
       .params = std::move(help),
       .make = [](PluginArgs& args) -> StatusOr<std::unique_ptr<Plugin>> {
         Params params(args.parameters);
         Settings s;
         s.cost = ReadTokenCost(params);
         s.quantum = params.Double("quantumTokens", 256, 1, 1e9);
         return Done(params, std::make_unique<DeficitRoundRobin>(std::move(s)));
       }});
}

}  // namespace llmd::sched
