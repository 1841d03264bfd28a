#include "gateway/tries.h"

#include <gtest/gtest.h>

namespace llmd::gateway {
namespace {

using relay::Failure;
using std::chrono::milliseconds;
using std::chrono::seconds;

TEST(Backoff, DoublesUpToItsLimitWithinHalfAndWhole) {
  Backoff backoff(7);
  Duration whole = Backoff::kFirst;
  for (int round = 0; round < 40; ++round) {
    const Duration wait = backoff.Of(round);
    EXPECT_GE(wait, whole / 2) << round;
    EXPECT_LE(wait, whole) << round;
    whole = std::min(whole * 2, Backoff::kMost);
  }
}

TEST(Backoff, IsSeededAndNotTheSameForAll) {
  Backoff one(1), same(1), other(2);
  bool differs = false;
  for (int i = 0; i < 10; ++i) {
    const Duration wait = one.Of(3);
    EXPECT_EQ(wait, same.Of(3));
    differs |= wait != other.Of(3);
  }
  EXPECT_TRUE(differs);
}

TEST(Tries, CountEnginesThatMayHaveReadTheRequest) {
  const TryLimits limits{.max_attempts = 2};
  Tries tries;
  for (const Failure unread : {Failure::kRefused, Failure::kOurs, Failure::kRefused}) {
    tries.OnSent();
    tries.OnFailed(unread);
    EXPECT_FALSE(tries.Exhausted(limits));
  }
  tries.OnSent();
  tries.OnFailed(Failure::kReset);
  EXPECT_FALSE(tries.Exhausted(limits));
  tries.OnSent();
  tries.OnReached();
  EXPECT_TRUE(tries.Exhausted(limits));
  EXPECT_EQ(tries.sent(), 5);
}

TEST(Tries, ThoseThatCannotBeReachedHaveABoundToo) {
  Tries tries;
  for (int i = 0; i < TryLimits::kMaxUnreached; ++i) {
    EXPECT_FALSE(tries.Exhausted({}));
    tries.OnSent();
    tries.OnFailed(Failure::kRefused);
  }
  EXPECT_TRUE(tries.Exhausted({}));
}

TEST(Tries, AllAreTriedAgainWhileTheTimeForItLasts) {
  const TryLimits limits{.max_attempts = 100, .retry_timeout = seconds(2)};
  Backoff backoff(1);
  Tries tries;
  TimePoint now = TimePoint() + seconds(100);
  const TimePoint begun = now;
  int rounds = 0;
  while (const auto wait = tries.Again(now, TimePoint::max(), limits, backoff)) {
    now += *wait;
    ++rounds;
  }
  EXPECT_GE(rounds, 4);
  EXPECT_LT(now - begun, seconds(2));
}

TEST(Tries, NotBeyondTheRequestsDeadlineNorItsAttempts) {
  Backoff backoff(1);
  const TimePoint now = TimePoint() + seconds(100);
  Tries tries;
  EXPECT_FALSE(tries.Again(now, now + milliseconds(20), {}, backoff));
  EXPECT_TRUE(tries.Again(now, now + seconds(1), {}, backoff));
  EXPECT_FALSE(tries.Again(now, TimePoint::max(), {.max_attempts = 0}, backoff));
  EXPECT_FALSE(tries.Again(now, TimePoint::max(), {.retry_timeout = Duration::zero()}, backoff));
}

}  // namespace
}  // namespace llmd::gateway
