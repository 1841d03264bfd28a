#include "llmd/sched/decision_tries.h"

#include <gmock/gmock.h>

#include "trace/record.h"

namespace llmd::sched {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::SizeIs;
using ::testing::StartsWith;

DecisionTrace Routed(const char* endpoint, int64_t unix_nanos) {
  DecisionTrace out;
  out.request_id = "id";
  out.model = "m";
  out.unix_nanos = unix_nanos;
  out.endpoints = {endpoint};
  out.addresses = {"10.0.0.1:8000"};
  out.metrics_age_ms = {3};
  out.decision_type = "decode-only";
  out.primary = 0;
  return out;
}

DecisionTrace Refused(int status, int64_t unix_nanos) {
  DecisionTrace out;
  out.request_id = "id";
  out.unix_nanos = unix_nanos;
  out.denied_status = status;
  out.denied_reason = "saturated";
  return out;
}

TEST(DecisionTries, OneAloneIsTheDecisionItself) {
  const std::vector<DecisionTrace> one = {Routed("default/a", 1)};
  EXPECT_EQ(TriesToJson(one).Dump(), ToJson(one[0]).Dump());
  EXPECT_EQ(TriesToText(one), ToText(one[0]));
  EXPECT_THAT(*TriesFromJson(TriesToJson(one)), SizeIs(1));
}

TEST(DecisionTries, AreOneObjectWithTheNewestOnTop) {
  const std::vector<DecisionTrace> tries = {Refused(429, 1), Routed("default/a", 2),
                                            Refused(503, 3)};
  const json::Value value = TriesToJson(tries);
  EXPECT_EQ(value["denied_status"].AsInt(), 503);
  EXPECT_THAT(value["earlier"].AsArray(), SizeIs(2));
  const auto back = TriesFromJson(value);
  ASSERT_TRUE(back.ok()) << back.status().ToString();
  EXPECT_EQ(TriesToJson(*back).Dump(), value.Dump());
}

TEST(DecisionTries, AnEarlierOneThatIsNoDecisionIsRefused) {
  json::Value value = ToJson(Routed("default/a", 1));
  value.Set("earlier", json::Array{json::Value(3)});
  EXPECT_FALSE(TriesFromJson(value).ok());
}

TEST(DecisionTries, TextListsTheOutcomesOldestFirst) {
  const int64_t second = 1'000'000'000;
  const std::string text = TriesToText(std::vector<DecisionTrace>{
      Refused(503, 3661 * second + 7'000'000), Routed("default/a", 3662 * second)});
  EXPECT_THAT(text, StartsWith("request id was tried 2 times\n"
                               "  try 1 of 2 at 01:01:01.007: refused with 503: saturated\n"
                               "  try 2 of 2 at 01:01:02.000: decode-only -> default/a "
                               "(10.0.0.1:8000)\n"));
  EXPECT_THAT(text, AllOf(HasSubstr("\ntry 1 of 2, request id\n"),
                          HasSubstr("\ntry 2 of 2, request id\n")));
}

TEST(DecisionRing, FindsEveryDecisionOfAnIdOldestFirst) {
  DecisionRing ring(64, 1 << 20);  // four a shard
  for (int i = 0; i < 6; ++i) {
    DecisionRecord record;
    record.request_id = "id";
    record.denied_status = 500 + i;
    ring.Swap(record);
  }
  const auto found = ring.Find("id");
  ASSERT_TRUE(found.ok());
  ASSERT_THAT(*found, SizeIs(4));
  for (int i = 0; i < 4; ++i) EXPECT_EQ((*found)[i].denied_status, 502 + i);
}

}  // namespace
}  // namespace llmd::sched
