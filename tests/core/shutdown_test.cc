#include "llmd/shutdown.h"

#include <gtest/gtest.h>

#include <thread>

namespace llmd {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

TEST(Shutdown, RunsStepsOnceTheLastAddedFirst) {
  Shutdown shutdown;
  std::vector<std::string> ran;
  shutdown.AddStep("listener", [&](TimePoint) { ran.emplace_back("listener"); });
  shutdown.AddStep("streams", [&](TimePoint) { ran.emplace_back("streams"); });
  EXPECT_FALSE(shutdown.begun());
  shutdown.Begin(seconds(60));
  shutdown.Begin(seconds(60));
  EXPECT_TRUE(shutdown.begun());
  EXPECT_EQ(ran, (std::vector<std::string>{"streams", "listener"}));
  EXPECT_TRUE(shutdown.LateSteps().empty());
}

TEST(Shutdown, GivesAllStepsOneDeadlineAndNamesTheLate) {
  Shutdown shutdown;
  TimePoint first, second;
  shutdown.AddStep("late", [&](TimePoint deadline) {
    second = deadline;
    while (SystemClock().Now() <= deadline) std::this_thread::yield();
  });
  shutdown.AddStep("quick", [&](TimePoint deadline) { first = deadline; });
  shutdown.Begin(milliseconds(20));
  EXPECT_EQ(first, second);
  EXPECT_EQ(shutdown.LateSteps().front(), "late");
}

TEST(Shutdown, RunsStepsAddedTooLateAtOnce) {
  Shutdown shutdown;
  shutdown.Begin(seconds(60));
  bool ran = false;
  shutdown.AddStep("x", [&](TimePoint) { ran = true; });
  EXPECT_TRUE(ran);
}

TEST(Shutdown, WakesThoseWhoWait) {
  Shutdown shutdown;
  EXPECT_FALSE(shutdown.WaitFor(milliseconds(1)));
  std::thread waiter([&] { EXPECT_TRUE(shutdown.WaitFor(seconds(60))); });
  shutdown.Begin(seconds(1));
  waiter.join();
}

// A step may use the shutdown it belongs to: no lock is held.
TEST(Shutdown, StepsMayAskIt) {
  Shutdown shutdown;
  bool begun = false;
  shutdown.AddStep("x", [&](TimePoint) { begun = shutdown.begun(); });
  shutdown.Begin(seconds(60));
  EXPECT_TRUE(begun);
}

}  // namespace
}  // namespace llmd
