#include "gateway/timeouts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace llmd::gateway {
namespace {

using std::chrono::seconds;

TEST(TimeoutTable, TheFirstRuleThatFitsCounts) {
  Timeouts all;
  all.gap = seconds(9);
  const auto table = TimeoutTable::Create(all, {"/v1/embeddings=first-byte:30s,gap:5s,request:1m",
                                                "/v1/e*=request:0s,first-byte:7s", "/v1/*=gap:1s"});
  ASSERT_TRUE(table.ok()) << table.status().ToString();
  EXPECT_EQ(table->Of("/v1/embeddings").first_byte, seconds(30));
  EXPECT_EQ(table->Of("/v1/embeddings").gap, seconds(5));
  EXPECT_EQ(table->Of("/v1/embeddings").whole, seconds(60));
  EXPECT_EQ(table->Of("/v1/embeddings/x").first_byte, seconds(7));
  EXPECT_EQ(table->Of("/v1/embeddings/x").gap, seconds(9));  // not named: that of all
  EXPECT_EQ(table->Of("/v1/chat").gap, seconds(1));
  EXPECT_EQ(table->Of("/tokenize").gap, seconds(9));
}

TEST(TimeoutTable, BadRulesAreNamed) {
  for (const char* rule : {"", "/v1/x", "v1=gap:1s", "/v1/x=", "/v1/x=gap", "/v1/x=gap:",
                           "/v1/x=gap:1", "/v1/x=gap:0s", "/v1/x=gap:-1s", "/v1/x=gap:1s,",
                           "/v1/x=hole:1s", "/v1/*/x=gap:1s", "/v1/x=request:-1s"}) {
    const auto table = TimeoutTable::Create({}, {rule});
    ASSERT_FALSE(table.ok()) << rule;
    EXPECT_THAT(std::string(table.status().message()),
                testing::HasSubstr("'" + std::string(rule) + "'"));
  }
  EXPECT_FALSE(
      TimeoutTable::Create({}, std::vector<std::string>(TimeoutTable::kMaxRules + 1, "/a=gap:1s"))
          .ok());
}

TEST(TimeoutTable, LimitsOfZeroAreRefused) {
  for (Duration Timeouts::* const field : {&Timeouts::first_byte, &Timeouts::gap}) {
    Timeouts all;
    all.*field = Duration::zero();
    EXPECT_FALSE(TimeoutTable::Create(all, {}).ok());
  }
  Timeouts all;
  all.whole = -seconds(1);
  EXPECT_FALSE(TimeoutTable::Create(all, {}).ok());
}

TEST(Timeouts, NoWholeIsNoDeadline) {
  EXPECT_EQ(Timeouts().DeadlineOf(TimePoint() + seconds(5)), TimePoint::max());
  Timeouts limited;
  limited.whole = seconds(3);
  EXPECT_EQ(limited.DeadlineOf(TimePoint() + seconds(5)), TimePoint() + seconds(8));
}

}  // namespace
}  // namespace llmd::gateway
