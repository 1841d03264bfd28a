#include "llmd/clock.h"

#include <gtest/gtest.h>

namespace llmd {
namespace {

using std::chrono::milliseconds;

TEST(FakeClock, MovesOnlyWhenToldAndBothTimesTogether) {
  FakeClock clock(1'000);
  const TimePoint start = clock.Now();
  EXPECT_EQ(clock.Now(), start);
  EXPECT_EQ(clock.UnixNanos(), 1'000);
  clock.Advance(milliseconds(3));
  EXPECT_EQ(clock.Now() - start, milliseconds(3));
  EXPECT_EQ(clock.UnixNanos(), 3'001'000);
}

TEST(FakeClock, StartsAlike) {
  EXPECT_EQ(FakeClock().Now(), FakeClock().Now());
  EXPECT_EQ(FakeClock().UnixNanos(), FakeClock().UnixNanos());
}

TEST(SystemClock, DoesNotGoBack) {
  TimePoint last = SystemClock().Now();
  for (int i = 0; i < 10'000; ++i) {
    const TimePoint now = SystemClock().Now();
    ASSERT_GE(now, last);
    last = now;
  }
}

}  // namespace
}  // namespace llmd
