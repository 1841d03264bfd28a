// Flow control in a simulated clock: servers, arrivals and services are events; nothing waits.
#include <algorithm>
#include <map>
#include <queue>
#include <random>

#include "flow/controller.h"
#include "llmd/sched/config_loader.h"
#include "plugins/flow/flow_policies.h"
#include "sched/support.h"

namespace llmd::sched {
namespace {

using std::chrono::milliseconds;
using ::testing::DoubleEq;
using ::testing::ElementsAre;

std::shared_ptr<Graph> GraphOf(const std::string& flow, const std::vector<std::string>& plugins) {
  auto graph = LoadGraph(Config(plugins) + "featureGates: [flowControl]\nflowControl: " + flow, {});
  EXPECT_TRUE(graph.ok()) << graph.status().ToString();
  return graph.ok() ? *graph : nullptr;
}

// Servers with a fixed service time behind a flow controller.
class Cluster {
 public:
  Cluster(std::shared_ptr<Graph> graph, int servers, Duration service)
      : servers_(servers),
        service_(service),
        flow_(
            std::move(graph), clock_, metrics_, "pool",
            [this] { return static_cast<double>(busy_) / servers_; }, [] { return false; }) {}

  void Every(const std::string& flow, Duration gap, int count, int priority = 0) {
    for (int i = 0; i < count; ++i)
      events_.push({gap * i, [this, flow, priority] { Arrive(flow, priority); }});
  }
  void Run() {
    while (!events_.empty()) {
      const Event event = events_.top();
      events_.pop();
      clock_.Advance(event.at - (clock_.Now() - start_));
      event.run();
    }
  }
  // The q-quantile of a flow's waits, in milliseconds.
  double Wait(const std::string& flow, double q) {
    std::vector<double>& all = waits_[flow];
    std::sort(all.begin(), all.end());
    return all.at(static_cast<size_t>(q * static_cast<double>(all.size() - 1)));
  }
  size_t Served(const std::string& flow) { return waits_[flow].size(); }
  int most_busy() const { return most_busy_; }

 private:
  struct Event {
    Duration at{};
    std::function<void()> run;
    bool operator<(const Event& o) const { return at > o.at; }
  };
  void Arrive(const std::string& flow, int priority) {
    const TimePoint arrived = clock_.Now();
    flow_.Enqueue({priority, flow, 1, TimePoint::max(), [this, flow, arrived](FlowOutcome outcome) {
                     if (outcome != FlowOutcome::kDispatched) return;
                     waits_[flow].push_back(
                         std::chrono::duration<double, std::milli>(clock_.Now() - arrived).count());
                     most_busy_ = std::max(most_busy_, ++busy_);
                     events_.push({clock_.Now() - start_ + service_, [this] {
                                     --busy_;
                                     flow_.Pump();
                                   }});
                   }});
  }
  FakeClock clock_;
  const TimePoint start_ = clock_.Now();
  MetricsRegistry metrics_;
  int busy_ = 0, most_busy_ = 0;
  const int servers_;
  const Duration service_;
  std::priority_queue<Event> events_;
  std::map<std::string, std::vector<double>> waits_;
  FlowController flow_;
};

const std::vector<std::string> kRoundRobin = {"{type: round-robin-fairness-policy}"};
constexpr char kRoundRobinBand[] =
    "{defaultRequestTTL: 0s, defaultPriorityBand: {fairnessPolicyRef: "
    "round-robin-fairness-policy}}";

TEST(SimulatedFlow, NeverRunsMoreThanTheGateAllowsAndServesAll) {
  Cluster c(GraphOf("{defaultRequestTTL: 0s}", {"{type: queue-scorer}"}), 4, milliseconds(100));
  c.Every("a", milliseconds(10), 300);
  c.Run();
  EXPECT_EQ(c.most_busy(), 4);
  EXPECT_EQ(c.Served("a"), 300u);
}

TEST(SimulatedFlow, RoundRobinShieldsAVictimFromATenfoldAggressor) {
  Cluster c(GraphOf(kRoundRobinBand, kRoundRobin), 4, milliseconds(100));
  c.Every("victim", milliseconds(200), 100);
  c.Every("aggressor", milliseconds(20), 1000);
  c.Run();
  // At most the service under way and one turn of the other flow.
  EXPECT_LE(c.Wait("victim", 0.99), 100);
  EXPECT_GT(c.Wait("aggressor", 0.99), 1000);
}

TEST(SimulatedFlow, WithoutFairnessTheVictimWaitsWithTheRest) {
  Cluster c(GraphOf("{defaultRequestTTL: 0s}", {"{type: queue-scorer}"}), 4, milliseconds(100));
  c.Every("victim", milliseconds(200), 100);
  c.Every("aggressor", milliseconds(20), 1000);
  c.Run();
  EXPECT_GT(c.Wait("victim", 0.99), 1000);
}

TEST(SimulatedFlow, TwoGreedyFlowsShareEvenly) {
  Cluster c(GraphOf(kRoundRobinBand, kRoundRobin), 2, milliseconds(10));
  c.Every("a", milliseconds(1), 500);
  c.Every("b", milliseconds(1), 500);
  c.Run();
  EXPECT_NEAR(c.Wait("a", 0.5), c.Wait("b", 0.5), 20);
}

TEST(SimulatedFlow, AHigherBandHardlyWaits) {
  Cluster c(GraphOf("{defaultRequestTTL: 0s}", {"{type: queue-scorer}"}), 4, milliseconds(100));
  c.Every("urgent", milliseconds(200), 50, 5);
  c.Every("bulk", milliseconds(20), 500, 0);
  c.Run();
  EXPECT_LE(c.Wait("urgent", 1), 100);
  EXPECT_GT(c.Wait("bulk", 0.9), 500);
}

TEST(SimulatedFlow, HoldbackKeepsRoomForTheHighestBand) {
  Cluster c(
      GraphOf("{defaultRequestTTL: 0s, usageLimitPolicyPluginRef: hold, priorityBands: "
              "[{priority: 5}, {priority: 0}]}",
              {"{name: hold, type: priority-holdback-policy, parameters: {minCeiling: 0.5}}"}),
      4, milliseconds(100));
  c.Every("bulk", milliseconds(1), 200, 0);
  c.Run();
  EXPECT_EQ(c.most_busy(), 2);  // the lowest band stops at half
}

const UsageLimitPolicy& Limit(const Graph& graph) {
  return *graph.flow.limit;
}

TEST(PriorityHoldbackPolicy, FallsLinearlyByRankOrByValue) {
  const std::vector<int> bands = {100, 10, 0};
  const auto by_rank = GraphOf("{usageLimitPolicyPluginRef: p}",
                               {"{name: p, type: priority-holdback-policy, parameters: "
                                "{minCeiling: 0.2, maxCeiling: 0.8}}"});
  EXPECT_THAT(Limit(*by_rank).Ceiling(0, bands), DoubleEq(0.8));
  EXPECT_THAT(Limit(*by_rank).Ceiling(1, bands), DoubleEq(0.5));
  EXPECT_THAT(Limit(*by_rank).Ceiling(2, bands), DoubleEq(0.2));
  EXPECT_THAT(Limit(*by_rank).Ceiling(0, std::vector<int>{0}), DoubleEq(0.8));
  const auto by_value = GraphOf("{usageLimitPolicyPluginRef: p}",
                                {"{name: p, type: priority-holdback-policy, parameters: "
                                 "{minCeiling: 0, domain: value}}"});
  EXPECT_THAT(Limit(*by_value).Ceiling(1, bands), DoubleEq(0.1));
}

TEST(PriorityHoldbackPolicy, WantsItsMinimum) {
  const auto graph = LoadGraph(Config({"{type: priority-holdback-policy}"}), {});
  EXPECT_THAT(graph.status().message(), ::testing::HasSubstr("minCeiling"));
}

TEST(StaticUsageLimitPolicy, IsOneForAllBands) {
  const auto graph = GraphOf("{}", {"{type: static-usage-limit-policy, parameters: {threshold: "
                                    "0.7}}"});
  for (size_t rank : {0u, 1u}) EXPECT_EQ(Limit(*graph).Ceiling(rank, std::vector<int>{1, 0}), 0.7);
}

}  // namespace
}  // namespace llmd::sched
