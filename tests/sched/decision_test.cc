#include "llmd/sched/decision.h"

#include "record.h"
#include "sched/support.h"

namespace llmd::sched {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

DecisionTrace Sample() {
  auto s = MakeScheduler(Config(
      {"{type: decode-filter}", "{type: queue-scorer}", "{type: kv-cache-utilization-scorer}"}));
  EndpointState never = Ep("n", 1);
  never.metrics.ever = false;
  return Must(*s, Prompt("p"), {Ep("a", 0, 0, 0.5), Ep("p", 0, 0, 0, "prefill"), never}).trace;
}

TEST(Decision, SurvivesJson) {
  const DecisionTrace trace = Sample();
  const std::string text = ToJson(trace).Dump();
  const auto back = DecisionFromJson(*json::Parse(text));
  ASSERT_TRUE(back.ok()) << back.status().ToString();
  EXPECT_EQ(ToJson(*back).Dump(), text);
}

TEST(Decision, RefusesIndexesOutOfRange) {
  json::Value v = ToJson(Sample());
  v.Set("primary", 99);
  EXPECT_FALSE(DecisionFromJson(v).ok());
  EXPECT_FALSE(DecisionFromJson(json::Value(3)).ok());
}

TEST(Decision, TextNamesEverythingAPersonAsksFor) {
  EXPECT_THAT(ToText(Sample()),
              AllOf(HasSubstr("default/a"), HasSubstr("dropped by decode-filter"),
                    HasSubstr("queue-scorer x1.00"), HasSubstr("<- chosen"), HasSubstr("margin"),
                    HasSubstr("never"), HasSubstr("data age")));
  DecisionTrace denied;
  denied.denied_status = 503;
  denied.denied_reason = "rejected-no-endpoints";
  EXPECT_THAT(ToText(denied), HasSubstr("refused with 503"));
}

TEST(DecisionRing, KeepsTheLatestAndForgetsTheOldest) {
  DecisionRing ring(16);  // one per shard
  DecisionRecord record;
  for (int i = 0; i < 200; ++i) {
    record.Reset();
    record.request_id = "r" + std::to_string(i);
    ring.Swap(record);
  }
  EXPECT_TRUE(ring.Find("r199").ok());
  EXPECT_EQ(ring.Find("r0").status().code(), StatusCode::kNotFound);
  EXPECT_FALSE(ring.Find("").ok());
}

}  // namespace
}  // namespace llmd::sched
