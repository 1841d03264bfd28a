#include "pass/stopwatch.h"

#include <gtest/gtest.h>

namespace llmd::sched {
namespace {

using std::chrono::milliseconds;

TEST(Stopwatch, LapsAreTimesOfTheGivenClock) {
  FakeClock clock;
  Histogram first({1}), second({1});
  Stopwatch watch(clock);
  clock.Advance(milliseconds(250));
  watch.Lap(&first);
  watch.Lap(&second);
  EXPECT_EQ(first.sum(), 0.25);
  EXPECT_EQ(second.sum(), 0) << "the clock stood still";
  EXPECT_EQ(second.count(), 1u);
}

TEST(Stopwatch, ALapOfNobodyGoesToTheNext) {
  FakeClock clock;
  Histogram next({1});
  Stopwatch watch(clock);
  clock.Advance(milliseconds(250));
  watch.Lap(nullptr);
  clock.Advance(milliseconds(250));
  watch.Lap(&next);
  EXPECT_EQ(next.sum(), 0.5);
}

}  // namespace
}  // namespace llmd::sched
