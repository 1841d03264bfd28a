#include "llmd/nearest.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace llmd {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

const std::vector<std::string> kScorers = {"queue-scorer", "kv-cache-utilization-scorer",
                                           "kv-headroom-scorer", "prefix-cache-scorer",
                                           "running-requests-scorer"};

TEST(NearestNames, TypingErrorsComeFirst) {
  EXPECT_THAT(NearestNames("queue-scorrer", kScorers), ElementsAre("queue-scorer"));
  EXPECT_THAT(NearestNames("Queue_Scorer", kScorers), ElementsAre("queue-scorer"));
  EXPECT_THAT(NearestNames("abd", {"abz", "abc", "abd2"}, 2), ElementsAre("abz", "abc"));
}

TEST(NearestNames, NamesThatHoldEveryWordFollow) {
  EXPECT_THAT(NearestNames("kv-scorer", kScorers),
              ElementsAre("kv-headroom-scorer", "kv-cache-utilization-scorer"));
  EXPECT_THAT(NearestNames("scorer", kScorers, 3).size(), 3);
}

TEST(NearestNames, NothingNearIsNothing) {
  EXPECT_THAT(NearestNames("entirely-else", kScorers), IsEmpty());
  EXPECT_THAT(NearestNames("", kScorers), IsEmpty());
  EXPECT_THAT(NearestNames("-", kScorers), IsEmpty());
  EXPECT_THAT(NearestNames(std::string(1'000'000, 'a'), kScorers), IsEmpty());
}

TEST(DidYouMean, NamesTheNearOnesOrAShortList) {
  EXPECT_EQ(DidYouMean("queue-scorrer", kScorers), "; did you mean 'queue-scorer'?");
  EXPECT_EQ(DidYouMean("kv-scorer", kScorers),
            "; did you mean 'kv-headroom-scorer' or 'kv-cache-utilization-scorer'?");
  EXPECT_EQ(DidYouMean("abd", {"abc", "abz", "aby", "abx"}),
            "; did you mean 'abc', 'abz' or 'aby'?");
  EXPECT_EQ(DidYouMean("entirely-else", {"a", "b"}), "; known: a, b");
  EXPECT_EQ(DidYouMean("entirely-else", std::vector<std::string>(13, "a")), "");
  EXPECT_EQ(DidYouMean("x", {}), "");
}

}  // namespace
}  // namespace llmd
