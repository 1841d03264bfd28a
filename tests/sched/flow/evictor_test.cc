#include "flow/evictor.h"

#include "sched/flow/flow_support.h"

namespace llmd::sched {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// Room for four; what is taken back is listed and ends when the test says so.
class EvictorTest : public FlowFixture {
 protected:
  void Begin(const std::string& more = "") {
    Start(
        "{enableEviction: true, defaultRequestTTL: 0s, saturationDetector: {pluginRef: "
        "concurrency-detector}" +
            more + "}",
        {"{type: concurrency-detector}", "{type: queue-scorer}"});
    in_flight_ = 0;
    room_ = 4;
  }
  void Run(const std::string& name, int priority) {
    Ask(name, priority);
    ASSERT_TRUE(tickets_.contains(name)) << name << " was not dispatched";
    flow_->Revocable(tickets_.at(name), [this, name] { evicted_.push_back(name); });
    Events();
  }
  std::vector<std::string> Evicted() { return std::exchange(evicted_, {}); }
  std::vector<std::string> evicted_;
};

TEST_F(EvictorTest, TakesTheLowestPriorityAndInItTheNewest) {
  Begin();
  Run("old", -1);
  clock_.Advance(seconds(1));
  Run("new", -1);
  Run("lower", -2);
  Run("plain", 0);
  Ask("want", 1);
  EXPECT_THAT(Evicted(), ElementsAre("lower"));  // one is enough at the ceiling
  EXPECT_THAT(Events(), IsEmpty());
  End("lower");
  EXPECT_THAT(Events(), ElementsAre("want"));
  Ask("want2", 1);
  EXPECT_THAT(Evicted(), IsEmpty()) << "the first one's room has had no time to show";
  Pass(milliseconds(10));
  EXPECT_THAT(Evicted(), ElementsAre("new"));
  End("new");
  Pass(milliseconds(10));
  Ask("want3", 1);
  EXPECT_THAT(Evicted(), ElementsAre("old"));
  End("old");
  Pass(milliseconds(10));
  Ask("want4", 1);
  EXPECT_THAT(Evicted(), IsEmpty()) << "only sheddable requests are taken back";
}

TEST(Evictor, NotForABandWhoseCeilingIsZero) {
  const auto graph = FlowGraph("{enableEviction: true}");
  MetricsRegistry registry;
  FlowMetrics metrics(registry, "pool");
  Evictor evictor(*graph->flow.eviction_filter, *graph->flow.eviction_order, milliseconds(10),
                  metrics);
  FlowItem item;
  item.in_flight.priority = -1;
  evictor.Track(item);
  const std::vector<Demand> zero = {{5, 0}}, second = {{5, 0}, {4, 0.5}};
  EXPECT_THAT(evictor.Choose(1, zero, 1, {}), IsEmpty());
  EXPECT_THAT(evictor.Choose(1, second, 1, {}), ElementsAre(&item));
}

TEST_F(EvictorTest, NeverWithinABandOrForALowerOne) {
  Begin();
  for (const char* n : {"a", "b", "c", "d"}) Run(n, -1);
  Ask("same", -1);
  Ask("lower", -2);
  EXPECT_THAT(Evicted(), IsEmpty());
  Ask("higher", 0);
  EXPECT_THAT(Evicted(), ElementsAre("d"));
}

TEST_F(EvictorTest, SizesByTheMeanShareAndTakesTwoAtMost) {
  Begin();
  room_ = 8;
  for (int i = 0; i < 8; ++i) Run("r" + std::to_string(i), -1);
  room_ = 4;  // saturation 2, credit 1/4: four too many
  Ask("want", 0);
  EXPECT_THAT(Evicted(), ElementsAre("r7", "r6"));
  const std::string page = metrics_.Expose();
  EXPECT_THAT(page, HasSubstr("flow_control_reclaim_target{inference_pool=\"pool\"} 1.0"));
  EXPECT_THAT(page, HasSubstr("flow_control_pending_reclaim{inference_pool=\"pool\"} 0.5"));
  EXPECT_THAT(page, HasSubstr("flow_control_revocations_issued_total{inference_pool=\"pool\","
                              "priority=\"0\"} 2.0"));
}

TEST_F(EvictorTest, CountsConfirmationsAndGivesUpAfterTenSeconds) {
  Begin();
  for (const char* n : {"a", "b", "c", "d"}) Run(n, -1);
  Ask("want", 0);
  EXPECT_THAT(Evicted(), ElementsAre("d"));
  Pass(milliseconds(9'990));
  EXPECT_THAT(Evicted(), IsEmpty());
  Pass(milliseconds(10));  // d is given up; its debit cools down
  EXPECT_THAT(Evicted(), IsEmpty());
  Pass(milliseconds(10));
  EXPECT_THAT(Evicted(), ElementsAre("c"));
  clock_.Advance(milliseconds(20));
  End("c");
  End("d");  // late: counted as timed out only
  const std::string page = metrics_.Expose();
  EXPECT_THAT(page, HasSubstr("flow_control_revocations_total{inference_pool=\"pool\",outcome="
                              "\"confirmed\"} 1.0"));
  EXPECT_THAT(page, HasSubstr("outcome=\"timed_out\"} 1.0"));
  EXPECT_THAT(page, HasSubstr("flow_control_revocation_confirmation_seconds_sum{inference_pool="
                              "\"pool\"} 0.02"));
}

TEST_F(EvictorTest, ARequestThatEndedByItselfIsNoVictim) {
  Begin();
  for (const char* n : {"a", "b", "c", "d"}) Run(n, -1);
  End("d");
  Run("e", 0);
  Ask("want", 0);
  EXPECT_THAT(Evicted(), ElementsAre("c"));
}

TEST_F(EvictorTest, WithoutACallbackNothingIsTakenBack) {
  Begin();
  for (const char* n : {"a", "b", "c", "d"}) Ask(n, -1);
  Events();
  Ask("want", 0);
  EXPECT_THAT(Events(), IsEmpty());
}

TEST_F(EvictorTest, AFullQueueDisplacesTheNewestSheddableOfTheLowestBand) {
  Begin(", maxRequests: 3, maxBytes: 1000");
  in_flight_ = 4;
  Ask("low1", -2);
  Ask("low2", -2);
  Ask("mid", -1);
  Ask("high", 3);
  EXPECT_THAT(Events(), ElementsAre("low2!EvictedOther"));
  Ask("low3", -2);
  EXPECT_THAT(Events(), ElementsAre("low3!RejectedCapacity"));
  Ask("big", FlowRequest{.priority = 3, .bytes = 991});
  EXPECT_THAT(Events(), ElementsAre("big!RejectedCapacity")) << "no displacement could make room";
  Ask("wide", FlowRequest{.priority = 3, .bytes = 985});
  EXPECT_THAT(Events(), ElementsAre("low1!EvictedOther", "mid!EvictedOther"));
}

TEST_F(EvictorTest, WithoutEvictionAFullQueueRefuses) {
  Start("{maxRequests: 1}");
  Ask("low", -1);
  Ask("high", 3);
  EXPECT_THAT(Events(), ElementsAre("high!RejectedCapacity"));
}

}  // namespace
}  // namespace llmd::sched
