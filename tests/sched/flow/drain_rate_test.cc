#include "flow/drain_rate.h"

#include <gtest/gtest.h>

namespace llmd::sched {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

TEST(DrainRate, FindsASteadyRateFromTheFirstSecondsOn) {
  DrainRate rate;
  TimePoint now(seconds(1000));
  for (int i = 1; i <= 600; ++i) {
    now += milliseconds(50);
    rate.Dispatched(now);
    if (i == 40) EXPECT_NEAR(rate.PerSecond(now), 20, 2);
  }
  EXPECT_NEAR(rate.PerSecond(now), 20, 1);
  EXPECT_EQ(rate.RetryAfter(now, 0), 1);
  EXPECT_NEAR(rate.RetryAfter(now, 400), 20, 1);
  EXPECT_EQ(rate.RetryAfter(now, 100'000), 60);
}

TEST(DrainRate, ForgetsAndWithoutAnyItIsAMinute) {
  DrainRate rate;
  const TimePoint start(seconds(5));
  EXPECT_EQ(rate.PerSecond(start), 0);
  EXPECT_EQ(rate.RetryAfter(start, 1), 60);
  rate.Dispatched(start);
  EXPECT_GT(rate.PerSecond(start), 0);
  EXPECT_LT(rate.PerSecond(start + seconds(100)), 0.001);
}

}  // namespace
}  // namespace llmd::sched
