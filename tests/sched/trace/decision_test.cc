#include "llmd/sched/decision.h"

#include <algorithm>
#include <cmath>

#include "sched/support.h"
#include "trace/record.h"

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
  EXPECT_THAT(ToText(Sample()), HasSubstr("1.0000 -> 1.0000")) << "raw and weighted";
  DecisionTrace denied;
  denied.denied_status = 503;
  denied.denied_reason = "rejected-no-endpoints";
  EXPECT_THAT(ToText(denied), HasSubstr("refused with 503"));
}

TEST(Decision, WeighsAndMeasuresTheMargin) {
  ProfileTrace p;
  p.candidates = {0, 1, 2};
  p.totals = {1, 3, 2.5};
  p.picked = {1};
  const ScoreTrace score{"s", 2, {std::nan(""), 0.5, 7}};
  EXPECT_EQ(p.Weighted(score, 0), 0);
  EXPECT_EQ(p.Weighted(score, 1), 1);
  EXPECT_EQ(p.Weighted(score, 2), 2) << "clamped to 1 before the weight";
  EXPECT_EQ(p.Margin(), 0.5);
  p.picked = {0};
  EXPECT_EQ(p.Margin(), -2) << "a random picker took less than the best";
  p.candidates = {0};
  p.totals = {1};
  EXPECT_EQ(p.Margin(), 0);
}

TEST(Decision, HeaderIsCompactAsciiAndBounded) {
  DecisionTrace trace = Sample();
  trace.endpoints[0] = "default/\u00e4";
  const std::string header = ToHeader(trace);
  EXPECT_TRUE(json::Parse(header).ok()) << header;
  EXPECT_TRUE(
      std::all_of(header.begin(), header.end(), [](char c) { return c >= 0x20 && c < 0x7f; }));
  EXPECT_EQ(ToHeader(trace, 10), "");
}

TEST(DecisionRing, KeepsTheLatestAndForgetsTheOldest) {
  DecisionRing ring(16, 1 << 20);  // one per shard
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

// The buffers of everything the ring holds, counted from outside: what goes in less what comes out.
class DecisionRingBytes : public testing::Test {
 protected:
  void Add(size_t endpoints) {
    DecisionRecord& record = record_;
    record.Reset();
    record.request_id = "request-" + std::to_string(next_++);
    record.ages_ms.assign(endpoints, 1);
    held_ += record.SizeBytes();
    ring_.Swap(record);
    held_ -= record.SizeBytes();
  }
  size_t Kept() const { return ring_.Latest(10'000).size(); }
  static constexpr size_t kMaxBytes = 16 * 64 * 1024;
  DecisionRing ring_{4096, kMaxBytes};
  DecisionRecord record_;
  int next_ = 0;
  size_t held_ = 0;
};

TEST_F(DecisionRingBytes, KeepsAsManyOfTheLastAsFit) {
  for (int i = 0; i < 20'000; ++i) Add(2000);  // 8 KB each: seven or eight a shard
  EXPECT_GE(Kept(), 16u * 7);
  EXPECT_LE(Kept(), 16u * 8);
  EXPECT_LE(held_, kMaxBytes + (16 << 10));
  EXPECT_TRUE(ring_.Find("request-19999").ok());
  EXPECT_TRUE(ring_.Find("request-19950").ok());
  EXPECT_FALSE(ring_.Find("request-19000").ok());
}

TEST_F(DecisionRingBytes, ManySmallOnesAreBoundByTheirNumber) {
  for (int i = 0; i < 20'000; ++i) Add(1);
  EXPECT_EQ(Kept(), 4096u);
}

TEST_F(DecisionRingBytes, LargerOnesPushOutMoreAndTheLatestStays) {
  for (const size_t endpoints : {100, 1000, 3000, 1000, 9000, 500}) {
    for (int i = 0; i < 5000; ++i) {
      Add(endpoints);
      ASSERT_TRUE(ring_.Find("request-" + std::to_string(next_ - 1)).ok()) << next_;
    }
    if (endpoints < 9000) EXPECT_GE(Kept(), 16u * 2) << endpoints;
    EXPECT_GE(Kept(), 16u) << "one that is larger than the bound is kept alone";
  }
}

}  // namespace
}  // namespace llmd::sched
