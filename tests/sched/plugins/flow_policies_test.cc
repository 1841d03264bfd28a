// Usage limits, fairness and eviction policies by themselves; their interplay is in flow/.
#include <cmath>

#include "llmd/sched/usage_limit.h"
#include "sched/flow/flow_support.h"

namespace llmd::sched {
namespace {

using std::chrono::seconds;
using ::testing::DoubleNear;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::shared_ptr<Graph> WithLimit(const std::string& type, const std::string& parameters = "{}") {
  return FlowGraph("{usageLimitPolicyPluginRef: p}",
                   {"{name: p, type: " + type + ", parameters: " + parameters + "}"});
}
std::vector<double> Ceilings(const Graph& graph, double saturation, const std::vector<int>& bands) {
  std::vector<double> out(bands.size());
  graph.flow.limit->Ceilings(saturation, bands, out);
  return out;
}
auto Near(double v) {
  return DoubleNear(v, 1e-12);
}

TEST(StaticUsageLimitPolicy, IsOneForAllBands) {
  const auto graph = WithLimit("static-usage-limit-policy", "{threshold: 0.7}");
  EXPECT_THAT(Ceilings(*graph, 0.9, {1, 0}), ElementsAre(0.7, 0.7));
}

TEST(PriorityHoldbackPolicy, FallsLinearlyByRankOrByValue) {
  const std::vector<int> bands = {100, 10, 0};
  const auto by_rank = WithLimit("priority-holdback-policy", "{minCeiling: 0.2, maxCeiling: 0.8}");
  EXPECT_THAT(Ceilings(*by_rank, 0, bands), ElementsAre(Near(0.8), Near(0.5), Near(0.2)));
  EXPECT_THAT(Ceilings(*by_rank, 0, {0}), ElementsAre(Near(0.8)));
  const auto by_value = WithLimit("priority-holdback-policy", "{minCeiling: 0, domain: value}");
  EXPECT_THAT(Ceilings(*by_value, 0, bands), ElementsAre(Near(1), Near(0.1), Near(0)));
}

TEST(PriorityHoldbackPolicy, WantsItsMinimum) {
  const auto graph = LoadGraph(Config({"{type: priority-holdback-policy}"}), {});
  EXPECT_THAT(graph.status().message(), HasSubstr("minCeiling"));
}

TEST(SoftReflectiveCeilingPolicy, ReflectsTheSaturationByRank) {
  const auto graph = WithLimit("soft-reflective-ceiling-policy");
  // Below one half no band is at its ceiling.
  EXPECT_THAT(Ceilings(*graph, 0.49, {2, 1, 0}), ElementsAre(1, 1, 1));
  EXPECT_THAT(Ceilings(*graph, 0.6, {9}), ElementsAre(1));
  EXPECT_THAT(Ceilings(*graph, 1.0, {2, 1, 0}), ElementsAre(1, 0, 0));
  EXPECT_THAT(Ceilings(*graph, 1.5, {2, 1, 0}), ElementsAre(1, 0, 0));
}

TEST(SoftReflectiveCeilingPolicy, OpensBandsAtTheirCeilingOnceAPeriodAndTogether) {
  const auto graph = WithLimit("soft-reflective-ceiling-policy");
  int open = 0;
  for (int i = 0; i < 400; ++i) {
    const std::vector<double> c = Ceilings(*graph, 0.8, {3, 2, 1, 0});  // period 4
    EXPECT_EQ(c[0], 1);
    EXPECT_EQ(c[1], c[2]);
    EXPECT_EQ(c[2], c[3]);
    open += c[3] == 1;
  }
  EXPECT_EQ(open, 100);
  for (const auto& [saturation, times] : {std::pair{0.6, 400}, {0.7, 200}}) {  // periods 1 and 2
    open = 0;
    for (int i = 0; i < 400; ++i) open += Ceilings(*graph, saturation, {1, 0})[1] == 1;
    EXPECT_EQ(open, times);
  }
}

TEST(SoftReflectiveCeilingPolicy, TakesNoParameters) {
  const auto graph =
      LoadGraph(Config({"{type: soft-reflective-ceiling-policy, parameters: {threshold: 1}}"}), {});
  EXPECT_THAT(graph.status().message(), HasSubstr("threshold"));
}

TEST(EvictionPolicies, OnlyTheSheddableLowestFirstNewestFirst) {
  const auto graph = FlowGraph("{enableEviction: true}");
  const EvictionFilter& filter = *graph->flow.eviction_filter;
  EXPECT_TRUE(filter.Revocable({.priority = -1}));
  EXPECT_FALSE(filter.Revocable({.priority = 0}));
  const EvictionOrder& order = *graph->flow.eviction_order;
  const InFlightItem old{1, -1, TimePoint(seconds(1))}, young{2, -1, TimePoint(seconds(2))},
      lower{3, -5, TimePoint(seconds(0))};
  EXPECT_TRUE(order.Before(young, old));
  EXPECT_TRUE(order.Before(lower, young));
  EXPECT_FALSE(order.Before(old, old));
}

TEST(EvictionPolicies, WarnWhenTheyHaveNoEffect) {
  const auto graph = FlowGraph("{}", {"{type: sheddable-eviction-filter}"});
  EXPECT_THAT(GraphWarnings(*graph), ::testing::Contains(HasSubstr("enableEviction is off")));
}

// One band by itself: flows are added with a head each, and served in the order given.
class Fairness {
 public:
  explicit Fairness(const std::string& type, const std::string& parameters = "{}")
      : graph_(FlowGraph("{defaultPriorityBand: {fairnessPolicyRef: f}}",
                         {"{name: f, type: " + type + ", parameters: " + parameters + "}"})),
        band_(graph_->flow.default_band.fairness->MakeBand(*graph_->flow.default_band.ordering)) {}

  FlowState& Add(const std::string& id, double prompt = 0, TimePoint enqueued = {},
                 double max_output = -1) {
    auto& [flow, item] = flows_[id];
    flow.id = id;
    item.sequence = ++sequence_;
    item.enqueued = enqueued;
    item.prompt_tokens = prompt;
    item.max_output_tokens = max_output;
    flow.head = &item;
    band_->Add(flow);
    return flow;
  }
  void Remove(const std::string& id) { band_->Remove(flows_[id].first); }
  std::string Next(TimePoint now = {}) { return band_->Next(now, &charge_).id; }
  void Complete(const std::string& id, double prompt, double output, TimePoint now = {}) {
    flows_[id].first.id = id;
    auto& [flow, item] = flows_[id];
    band_->Completed(flow, item, now, charge_,
                     {.prompt_tokens = prompt, .output_tokens = output, .known = true});
  }
  // How often each of the next `n` choices falls on each flow.
  std::map<std::string, int> Count(int n) {
    std::map<std::string, int> out;
    for (int i = 0; i < n; ++i) ++out[Next()];
    return out;
  }
  double charge() const { return charge_.tokens; }
  std::string Page() const { return graph_->own_metrics->Expose(); }

 private:
  std::shared_ptr<Graph> graph_;
  std::unique_ptr<FairnessBand> band_;
  std::map<std::string, std::pair<FlowState, QueuedItem>> flows_;
  uint64_t sequence_ = 0;
  FlowCharge charge_;
};

TEST(RoundRobinFairnessPolicy, TakesFlowsInTurnAndNewOnesLast) {
  Fairness f("round-robin-fairness-policy");
  f.Add("b");
  f.Add("a");
  EXPECT_EQ(f.Next(), "b");
  f.Add("c");
  EXPECT_EQ(f.Next(), "a");
  EXPECT_EQ(f.Next(), "b");
  EXPECT_EQ(f.Next(), "c");
  f.Remove("a");
  EXPECT_EQ(f.Next(), "b");
  EXPECT_EQ(f.Next(), "c");
  f.Remove("b");
  f.Remove("c");
  f.Add("d");
  EXPECT_EQ(f.Next(), "d");
}

TEST(GlobalStrictFairnessPolicy, TakesTheBestHeadOfAll) {
  Fairness f("global-strict-fairness-policy");
  f.Add("b");
  f.Add("a");
  EXPECT_EQ(f.Next(), "b");
  f.Remove("b");
  f.Add("b");
  EXPECT_EQ(f.Next(), "a");
}

TEST(DeficitRoundRobinFairnessPolicy, ChargesPromptAndExpectedOutputByWeight) {
  Fairness f("deficit-round-robin-fairness-policy",
             "{inputTokenWeight: 1, outputTokenWeight: 3, expectedOutputTokens: 100}");
  f.Add("a", 50);
  EXPECT_EQ(f.Next(), "a");
  EXPECT_EQ(f.charge(), 50 + 3 * 100);
  f.Remove("a");
  f.Add("a", 50, {}, 10);  // max_tokens below what is expected
  f.Next();
  EXPECT_EQ(f.charge(), 50 + 3 * 10);
}

TEST(DeficitRoundRobinFairnessPolicy, SharesByWeightEvenWhenRequestsExceedManyQuanta) {
  Fairness f("deficit-round-robin-fairness-policy",
             "{weights: {a: 4}, defaultWeight: 2, quantumTokens: 1, expectedOutputTokens: 0}");
  f.Add("a", 1e6);
  f.Add("b", 1e6);
  const auto counts = f.Count(600);
  EXPECT_NEAR(counts.at("a"), 400, 2);
  EXPECT_NEAR(counts.at("b"), 200, 2);
}

TEST(DeficitRoundRobinFairnessPolicy, GivesACreditOf256TokensATurnByDefault) {
  Fairness f("deficit-round-robin-fairness-policy", "{expectedOutputTokens: 0}");
  f.Add("more", 257);
  f.Add("less", 128);
  for (const char* next : {"less", "less", "more", "less"}) EXPECT_EQ(f.Next(), next);
}

TEST(DeficitRoundRobinFairnessPolicy, DebtOutlastsTheQueueAndCreditDoesNot) {
  Fairness f("deficit-round-robin-fairness-policy", "{expectedOutputTokens: 0}");
  f.Add("a", 10);
  f.Add("b", 10);
  f.Next();
  f.Complete("a", 10, 50'000);  // far more than was charged
  f.Remove("a");
  EXPECT_GT(f.Add("a", 10).account.settled, 90'000);
  EXPECT_EQ(f.Count(1000).count("a"), 0u);
}

TEST(VirtualTokenCounterFairnessPolicy, TakesTheLeastServedByWeight) {
  Fairness f("virtual-token-counter-fairness-policy", "{weights: {a: 3}, expectedOutputTokens: 0}");
  f.Add("a", 100);
  f.Add("b", 100);
  const auto counts = f.Count(400);
  EXPECT_NEAR(counts.at("a"), 300, 1);
}

TEST(VirtualTokenCounterFairnessPolicy, LiftsAFlowThatComesBack) {
  Fairness f("virtual-token-counter-fairness-policy", "{expectedOutputTokens: 0}");
  f.Add("busy", 100);
  f.Count(1000);
  f.Add("late", 100);
  EXPECT_NEAR(f.Count(100).at("busy"), 50, 1);
  f.Remove("busy");
  f.Remove("late");
  EXPECT_GE(f.Add("new", 100).scratch.value, 100'000);  // also into an empty band
}

TEST(VirtualTokenCounterFairnessPolicy, CorrectsTheEstimateBothWays) {
  Fairness f("virtual-token-counter-fairness-policy", "{expectedOutputTokens: 500}");
  FlowState& a = f.Add("a", 100);
  f.Next();
  EXPECT_EQ(f.charge(), 100 + 2 * 500);
  f.Complete("a", 120, 10);
  EXPECT_EQ(a.scratch.value, 120 + 2 * 10);
  EXPECT_LT(a.account.expected_output, 500);  // it learns
  f.Next();
  const double prompts = (256 * 31 / 32.0 + 120) / (256 * 31 / 32.0 + 100);
  EXPECT_NEAR(f.charge(), 100 * prompts + 2 * (500 + (10 - 500) / 8.0), 1e-9);
}

TEST(TokenFairness, NeedsTheAnswersUsageWhereItIsUsed) {
  const auto with = [](const std::string& policy, const std::string& gate) {
    const auto graph = LoadGraph(
        Config({"{type: " + policy + "}", "{type: queue-scorer}", "{type: utilization-detector}"}) +
            "featureGates: [" + gate +
            "]\nflowControl: {defaultPriorityBand: {fairnessPolicyRef: " + policy +
            "}, saturationDetector: {pluginRef: utilization-detector}}\n",
        {});
    EXPECT_TRUE(graph.ok()) << graph.status().ToString();
    return graph.ok() && (*graph)->wants_response_body;
  };
  EXPECT_TRUE(with("virtual-token-counter-fairness-policy", "flowControl"));
  EXPECT_FALSE(with("virtual-token-counter-fairness-policy", ""));
  EXPECT_FALSE(with("round-robin-fairness-policy", "flowControl"));
}

TEST(TokenCost, RefusesBadWeights) {
  for (const char* bad : {"{weights: {a: 0}}", "{weights: {a: x}}", "{weights: [1]}",
                          "{inputTokenWeight: 0, outputTokenWeight: 0}", "{defaultWeight: -1}"}) {
    for (const char* type :
         {"deficit-round-robin-fairness-policy", "virtual-token-counter-fairness-policy"}) {
      const auto graph =
          LoadGraph(Config({"{type: " + std::string(type) + ", parameters: " + bad + "}"}), {});
      EXPECT_FALSE(graph.ok()) << bad;
      EXPECT_THAT(graph.status().message(), HasSubstr("eight")) << bad;
    }
  }
}

TEST(ProgramAwareFairness, ScoresLittleServiceAndLongWaits) {
  Fairness f("program-aware-fairness");
  const auto at = [](int s) { return TimePoint(seconds(s)); };
  f.Add("a", 0, at(100));
  f.Add("b", 0, at(90));
  f.Add("c", 0, at(0));
  // No service yet: equal, so that only the wait counts.
  EXPECT_EQ(f.Next(at(100)), "c");
  f.Complete("c", 1000, 500, at(100));  // 2000
  f.Complete("b", 100, 50, at(100));    // 200
  // a: .8 * 1 + .2 * 0; b: .8 * .9 + .2 * .1; c: .8 * 0 + .2 * 1.
  EXPECT_EQ(f.Next(at(100)), "a");
  f.Complete("a", 400, 0, at(100));  // 400: a .8 * (1 - 1/9), b .8 + .02
  EXPECT_EQ(f.Next(at(100)), "b");
}

TEST(ProgramAwareFairness, HalvesServiceEveryHalfLife) {
  const auto at = [](int s) { return TimePoint(seconds(s)); };
  Fairness f("program-aware-fairness", "{lasHalfLifeSeconds: 10, lasWeightHeadWait: 0}");
  f.Add("a");
  f.Add("b");
  f.Complete("a", 1000, 0, at(0));
  f.Complete("b", 300, 0, at(20));
  EXPECT_EQ(f.Next(at(20)), "a");  // 250 against 300
  f.Complete("a", 100, 0, at(20));
  EXPECT_EQ(f.Next(at(20)), "b");
}

TEST(ProgramAwareFairness, ShowsWaitsAndServiceByProgram) {
  using ::testing::ContainsRegex;
  const auto at = [](int s) { return TimePoint(seconds(s)); };
  // The page is read by the system's clock, so that nothing may decay.
  Fairness f("program-aware-fairness",
             "{lasHalfLifeSeconds: 1000000000, evictionTtlSeconds: 1000, evictionSweepSeconds: 1}");
  EXPECT_THAT(f.Page(), ContainsRegex("program_aware_jains_fairness_index[^\n]* 1.0\n"));
  f.Add("a", 0, at(100));
  f.Add("c", 0, at(0));
  EXPECT_EQ(f.Next(at(100)), "c");
  f.Complete("c", 1000, 500, at(100));
  EXPECT_EQ(f.Next(at(100)), "a");
  f.Remove("a");
  EXPECT_EQ(f.Next(at(101)), "c");
  const std::string page = f.Page();
  EXPECT_THAT(page, ContainsRegex("avg_wait_time_milliseconds.plugin_name=\"f\",plugin_type="
                                  "\"program-aware-fairness\",program_id=\"c\". 100500.0\n"));
  EXPECT_THAT(page, ContainsRegex("avg_wait_time_milliseconds[^\n]*program_id=\"a\". 0.0\n"));
  EXPECT_THAT(page, ContainsRegex("jains_fairness_index[^\n]* 0.5\n"));
  EXPECT_THAT(page, ContainsRegex("attained_service_tokens[^\n]*program_id=\"c\". (2000|1999)"));
  f.Complete("c", 0, 0, at(2000));  // sweeps
  EXPECT_THAT(f.Page(), ::testing::Not(::testing::HasSubstr("program_id=\"a\"")));
}

TEST(ProgramAwareFairness, ForgetsProgramsAfterTheirTtl) {
  const auto at = [](int s) { return TimePoint(seconds(s)); };
  Fairness f("program-aware-fairness",
             "{evictionTtlSeconds: 10, evictionSweepSeconds: 1, lasHalfLifeSeconds: 1000000}");
  f.Add("a");
  f.Complete("a", 1000, 0, at(1));
  f.Complete("b", 500, 0, at(1));
  f.Remove("a");
  f.Complete("b", 1, 0, at(20));  // sweeps
  f.Add("b");
  f.Add("a");
  EXPECT_EQ(f.Next(at(20)), "a");
}

TEST(ProgramAwareFairness, KnowsABoundedNumberOfPrograms) {
  const auto at = [](int s) { return TimePoint(seconds(s)); };
  Fairness f("program-aware-fairness", "{lasHalfLifeSeconds: 1000000000, lasWeightHeadWait: 0}");
  f.Add("waits");
  f.Complete("waits", 1000, 0, at(0));
  for (const char* idle : {"first", "second"}) f.Complete(idle, 1000, 0, at(0));
  for (int i = 0; i < 8190; ++i) f.Complete("p" + std::to_string(i), 1, 0, at(1));
  // Only the longest unused one is forgotten: it alone was served less than the one that waits.
  f.Add("second");
  EXPECT_EQ(f.Next(at(1)), "waits");
  f.Add("first");
  EXPECT_EQ(f.Next(at(1)), "first");
}

TEST(ProgramAwareFairness, WeighsDecaysAndForgetsByTheFieldsDefaults) {
  const auto at = [](int s) { return TimePoint(seconds(s)); };
  // .8 for no service against .8 (1 - service / 1000) + .2 for the longest wait: equal at 250.
  for (const auto& [service, next] : {std::pair{240, "late"}, {260, "fresh"}}) {
    Fairness f("program-aware-fairness");
    f.Add("fresh", 0, at(100));
    f.Add("late", 0, at(0));
    f.Add("busy", 0, at(100));
    f.Complete("late", service, 0, at(100));
    f.Complete("busy", 1000, 0, at(100));
    EXPECT_EQ(f.Next(at(100)), next);
  }
  for (const auto& [other, next] : {std::pair{51, "a"}, {49, "b"}}) {  // 100 is 50 a minute later
    Fairness f("program-aware-fairness");
    f.Add("a");
    f.Add("b");
    f.Complete("a", 100, 0, at(0));
    f.Complete("b", other, 0, at(60));
    EXPECT_EQ(f.Next(at(60)), next);
  }
  // What was served most goes next once that is forgotten.
  const auto after = [&](const std::string& parameters, int elapsed) {
    Fairness f("program-aware-fairness", "{lasHalfLifeSeconds: 1000000000" + parameters + "}");
    f.Complete("a", 1000, 0, at(0));
    f.Complete("b", 500, 0, at(elapsed));
    f.Add("b");
    f.Add("a");
    return f.Next(at(elapsed));
  };
  EXPECT_EQ(after("", 3599), "b");
  EXPECT_EQ(after("", 3600), "a");
  EXPECT_EQ(after(", evictionTtlSeconds: 10", 299), "b");
  EXPECT_EQ(after(", evictionTtlSeconds: 10", 300), "a");
}

}  // namespace
}  // namespace llmd::sched
