#include "flow/controller.h"

#include "llmd/sched/config_loader.h"
#include "sched/support.h"

namespace llmd::sched {
namespace {

using std::chrono::seconds;
using ::testing::ElementsAre;

class FlowControllerTest : public ::testing::Test {
 protected:
  void Start(const std::string& flow,
             const std::vector<std::string>& plugins = {"{type: queue-scorer}"}) {
    auto graph =
        LoadGraph(Config(plugins) + "featureGates: [flowControl]\nflowControl: " + flow, {});
    ASSERT_TRUE(graph.ok()) << graph.status().ToString();
    flow_ = std::make_unique<FlowController>(
        *graph, clock_, metrics_, "pool", [this] { return in_flight_ >= room_ ? 1.0 : 0.0; },
        [this] { return empty_; });
  }
  uint64_t Ask(const std::string& name, int priority = 0, const std::string& flow = "f",
               TimePoint slo = TimePoint::max()) {
    return flow_->Enqueue({priority, flow, 10, slo, [this, name](FlowOutcome o) {
                             if (o == FlowOutcome::kDispatched) ++in_flight_;
                             events_.push_back(name +
                                               (o == FlowOutcome::kDispatched
                                                    ? ""
                                                    : "!" + std::to_string(static_cast<int>(o))));
                           }});
  }
  std::vector<std::string> Open(int room) {
    room_ = in_flight_ + room;
    flow_->Pump();
    return std::exchange(events_, {});
  }
  FakeClock clock_;
  MetricsRegistry metrics_;
  int in_flight_ = 0, room_ = 0;
  bool empty_ = false;
  std::vector<std::string> events_;
  std::unique_ptr<FlowController> flow_;
};

TEST_F(FlowControllerTest, HigherBandsFirstThenArrival) {
  Start("{}");
  Ask("a", 0);
  Ask("b", 5);
  Ask("c", -1);
  Ask("d", 5);
  EXPECT_THAT(Open(2), ElementsAre("b", "d"));
  EXPECT_THAT(Open(9), ElementsAre("a", "c"));
  EXPECT_EQ(flow_->size(), 0u);
}

TEST_F(FlowControllerTest, RoundRobinTakesFlowsInTurn) {
  Start("{defaultPriorityBand: {fairnessPolicyRef: round-robin-fairness-policy}}",
        {"{type: round-robin-fairness-policy}"});
  for (const char* n : {"a1", "a2", "a3"}) Ask(n, 0, "a");
  Ask("b1", 0, "b");
  EXPECT_THAT(Open(4), ElementsAre("a1", "b1", "a2", "a3"));
}

TEST_F(FlowControllerTest, SloDeadlinesOrderAFlow) {
  Start("{defaultPriorityBand: {orderingPolicyRef: slo-deadline-ordering-policy}}",
        {"{type: slo-deadline-ordering-policy}"});
  Ask("none");
  Ask("late", 0, "f", TimePoint(seconds(20)));
  Ask("soon", 0, "f", TimePoint(seconds(10)));
  EXPECT_THAT(Open(3), ElementsAre("soon", "late", "none"));
}

TEST_F(FlowControllerTest, CapacityTtlCancelAndStop) {
  Start("{maxRequests: 3, defaultRequestTTL: 10s, priorityBands: [{priority: 1, maxRequests: 1}]}");
  Ask("a", 1);
  Ask("b", 1);
  EXPECT_THAT(std::exchange(events_, {}), ElementsAre("b!1"));
  const uint64_t ticket = Ask("c");
  Ask("d");
  Ask("e");
  EXPECT_THAT(std::exchange(events_, {}), ElementsAre("e!1"));
  flow_->Cancel(ticket);
  flow_->Cancel(ticket);
  EXPECT_THAT(std::exchange(events_, {}), ElementsAre("c!5"));
  clock_.Advance(seconds(9));
  Ask("g");
  flow_->Expire();
  EXPECT_TRUE(events_.empty());
  clock_.Advance(seconds(1));
  flow_->Expire();
  EXPECT_THAT(std::exchange(events_, {}), ElementsAre("a!3", "d!3"));
  flow_->Stop();
  Ask("h");
  EXPECT_THAT(events_, ElementsAre("g!6", "h!6"));
}

TEST_F(FlowControllerTest, AnEmptyPoolRestartsTheClockAndHasItsOwnTtl) {
  Start("{defaultRequestTTL: 10s, noEndpointRequestTTL: 2s}");
  Ask("a");
  clock_.Advance(seconds(9));
  empty_ = true;
  flow_->Expire();
  clock_.Advance(seconds(1));
  flow_->Expire();
  EXPECT_TRUE(Open(5).empty());  // nothing is dispatched to an empty pool
  clock_.Advance(seconds(1));
  flow_->Expire();
  EXPECT_THAT(events_, ElementsAre("a!4"));
}

}  // namespace
}  // namespace llmd::sched
