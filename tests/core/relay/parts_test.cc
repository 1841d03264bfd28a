// The parts that need no socket: timers, buffers, event streams, health, paths.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <utility>
#include <vector>

#include "http/relay/buffers.h"
#include "http/relay/event_tail.h"
#include "http/relay/timer_wheel.h"
#include "llmd/http/head_view.h"
#include "llmd/http/relay/upstream_health.h"

namespace llmd::relay {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

struct Counted {
  explicit Counted(TimerWheel& w)
      : wheel(w), timer([](void* self) { ++static_cast<Counted*>(self)->fired; }, this) {}
  TimerWheel& wheel;
  int fired = 0;
  Timer timer;
};

TEST(TimerWheel, FiresInTheTickAfterItsTimeAndOnce) {
  TimePoint now(seconds(100));
  TimerWheel wheel(now);
  Counted one(wheel);
  wheel.Set(one.timer, now + milliseconds(50));
  wheel.Advance(now + milliseconds(49));
  EXPECT_EQ(one.fired, 0);
  wheel.Advance(now + milliseconds(50 + 17 * 2));
  EXPECT_EQ(one.fired, 1);
  wheel.Advance(now + seconds(40));
  EXPECT_EQ(one.fired, 1);
}

TEST(TimerWheel, ADeadlineMovesBackForthAndAway) {
  TimePoint now(seconds(100));
  TimerWheel wheel(now);
  Counted one(wheel);
  wheel.Set(one.timer, now + milliseconds(100));
  wheel.Set(one.timer, now + milliseconds(500));
  wheel.Advance(now + milliseconds(200));
  EXPECT_EQ(one.fired, 0);
  wheel.Set(one.timer, now + milliseconds(250));
  wheel.Advance(now + milliseconds(300));
  EXPECT_EQ(one.fired, 1);
  wheel.Set(one.timer, now + milliseconds(400));
  wheel.Clear(one.timer);
  wheel.Advance(now + seconds(2));
  EXPECT_EQ(one.fired, 1);
}

TEST(TimerWheel, ReachesBeyondItsHorizonAndAcrossSleeps) {
  TimePoint now(seconds(100));
  TimerWheel wheel(now);
  Counted far(wheel), near(wheel);
  wheel.Set(far.timer, now + seconds(300));
  wheel.Set(near.timer, now + seconds(1));
  for (int s = 1; s < 300; ++s) wheel.Advance(now + seconds(s));
  EXPECT_EQ(near.fired, 1);
  EXPECT_EQ(far.fired, 0);
  wheel.Advance(now + seconds(301));
  EXPECT_EQ(far.fired, 1);
  wheel.Set(far.timer, now + seconds(302));
  wheel.Advance(now + seconds(9000));
  EXPECT_EQ(far.fired, 2);
}

TEST(TimerWheel, NextIsNeverTooLate) {
  TimePoint now(seconds(100));
  TimerWheel wheel(now);
  EXPECT_EQ(wheel.Next(), TimePoint::max());
  Counted one(wheel);
  wheel.Set(one.timer, now + seconds(5));
  for (int i = 0; i < 10 && one.fired == 0; ++i) {
    const TimePoint next = wheel.Next();
    ASSERT_LE(next, now + seconds(5) + milliseconds(34));
    wheel.Advance(next);
  }
  EXPECT_EQ(one.fired, 1);
}

TEST(TimerWheel, WhatFiresMayEndOthersAndSetItselfAgain) {
  TimePoint now(seconds(100));
  struct Pair {
    TimerWheel& wheel;
    TimePoint again;
    std::unique_ptr<Counted> other;
    int fired = 0;
    Timer timer{[](void* self) {
                  auto& pair = *static_cast<Pair*>(self);
                  ++pair.fired;
                  pair.other.reset();
                  pair.wheel.Set(pair.timer, std::exchange(pair.again, TimePoint::max()));
                },
                this};
  };
  TimerWheel wheel(now);
  Pair pair{wheel, now + milliseconds(200), std::make_unique<Counted>(wheel)};
  wheel.Set(pair.other->timer, now + milliseconds(10));
  wheel.Set(pair.timer, now + milliseconds(10));  // linked in front of the other
  wheel.Advance(now + milliseconds(60));
  EXPECT_EQ(pair.fired, 1);
  wheel.Advance(now + milliseconds(260));
  EXPECT_EQ(pair.fired, 2);
}

TEST(Buffer, GrowsMovesAndGivesBack) {
  BufferPool pool;
  {
    Buffer buffer;
    for (int i = 0; i < 3000; ++i) buffer.Append(pool, "0123456789");
    EXPECT_EQ(buffer.size(), 30'000U);
    buffer.Consume(29'990);
    EXPECT_EQ(buffer.view(), "0123456789");
    Buffer other = std::move(buffer);
    EXPECT_FALSE(buffer.has_block());  // NOLINT: what a move leaves is defined here
    EXPECT_EQ(other.view(), "0123456789");
    other.Consume(100);
    EXPECT_TRUE(other.empty());
  }
  const size_t kept = pool.kept_bytes();
  EXPECT_GT(kept, 0U);
  const Buffer again = pool.Take(20'000);
  EXPECT_EQ(again.capacity(), 32'768U);
  EXPECT_LT(pool.kept_bytes(), kept);
}

TEST(Buffer, ThePoolKeepsABoundedNumberOfBytes) {
  BufferPool pool;
  std::vector<Buffer> many;
  for (int i = 0; i < 20; ++i) many.push_back(pool.Take(1 << 20));
  many.clear();
  EXPECT_LE(pool.kept_bytes(), size_t{8} << 20);
}

TEST(EventTail, SaysWhatEndsTheEvent) {
  const auto after = [](std::string_view bytes) {
    EventTail tail;
    tail.Passed(bytes);
    return std::string(tail.Closing());
  };
  EXPECT_EQ(after(""), "");
  EXPECT_EQ(after("data: x\n\n"), "");
  EXPECT_EQ(after("data: x\r\n\r\n"), "");
  EXPECT_EQ(after("data: x\r\r"), "");
  EXPECT_EQ(after("data: x\n"), "\n");
  EXPECT_EQ(after("data: x\r\n"), "\n");
  EXPECT_EQ(after("data: x"), "\n\n");
  EXPECT_EQ(after("data: x\r"), "\n\n");
  EXPECT_EQ(WholeLines("a\nb\nc"), 4U);
  EXPECT_EQ(WholeLines("abc"), 0U);
}

class HealthTest : public ::testing::Test {
 protected:
  FakeClock clock_;
  UpstreamHealth health_{clock_};
  const Target target_ = *Target::Parse("127.0.0.1:9");
};

TEST_F(HealthTest, ARefusalEjectsAtOnceOthersAfterSeveralInARow) {
  EXPECT_TRUE(health_.Failed(1, target_, Failure::kRefused));
  EXPECT_THAT(*health_.Ejected(), ElementsAre(1));
  for (const Failure each : {Failure::kReset, Failure::kTimeout})
    EXPECT_FALSE(health_.Failed(2, target_, each));
  health_.Succeeded(2);
  EXPECT_FALSE(health_.Failed(2, target_, Failure::kProtocol));
  EXPECT_FALSE(health_.Failed(2, target_, Failure::kProtocol));
  EXPECT_TRUE(health_.Failed(2, target_, Failure::kProtocol));
  EXPECT_THAT(*health_.Ejected(), ElementsAre(1, 2));
}

TEST_F(HealthTest, OursIsHeldAgainstNobody) {
  for (int i = 0; i < 10; ++i) EXPECT_FALSE(health_.Failed(1, target_, Failure::kOurs));
  for (int i = 0; i < 10; ++i) EXPECT_FALSE(health_.Failed(1, target_, Failure::kDeadline));
  EXPECT_THAT(*health_.Ejected(), IsEmpty());
}

TEST_F(HealthTest, RequestsPutOutAtMostHalfOfAllThoseThatAreGoneAreOutBesides) {
  health_.SetMembers(5);
  for (int round = 0; round < 4; ++round) {
    for (UpstreamHealth::Key key = 1; key <= 5; ++key)
      health_.Failed(key, target_, Failure::kReset);
  }
  EXPECT_THAT(*health_.Ejected(), ElementsAre(1, 2));
  EXPECT_TRUE(health_.Failed(4, target_, Failure::kRefused));
  EXPECT_THAT(*health_.Ejected(), ElementsAre(1, 2, 4));
  UpstreamHealth alone(clock_);
  alone.SetMembers(1);
  for (int i = 0; i < 3; ++i) alone.Failed(1, target_, Failure::kReset);
  EXPECT_THAT(*alone.Ejected(), ElementsAre(1));
}

TEST_F(HealthTest, OneThatIsLostIsOutAtOnce) {
  EXPECT_TRUE(health_.Lost(1, target_));
  EXPECT_FALSE(health_.Lost(1, target_));
  EXPECT_THAT(*health_.Ejected(), ElementsAre(1));
}

TEST_F(HealthTest, IsProbedAfterABackoffThatDoubles) {
  health_.Failed(1, target_, Failure::kRefused);
  EXPECT_THAT(health_.TakeDue(), IsEmpty());
  const Duration expected[] = {seconds(1), seconds(2), seconds(4), seconds(5), seconds(5)};
  for (const Duration backoff : expected) {
    clock_.Advance(backoff - milliseconds(1));
    EXPECT_THAT(health_.TakeDue(), IsEmpty());
    clock_.Advance(milliseconds(1));
    const auto due = health_.TakeDue();
    ASSERT_EQ(due.size(), 1U);
    EXPECT_EQ(due[0].key, 1U);
    EXPECT_EQ(due[0].target, target_);
    EXPECT_THAT(health_.TakeDue(), IsEmpty());  // one at a time
    health_.Probed(1, false);
  }
  EXPECT_THAT(*health_.Ejected(), ElementsAre(1));
}

TEST_F(HealthTest, AProbeLetsItInAndAsManyFailuresEjectItForLonger) {
  health_.Failed(1, target_, Failure::kRefused);
  clock_.Advance(seconds(1));
  health_.TakeDue();
  const uint64_t before = health_.version();
  health_.Probed(1, true);
  EXPECT_THAT(*health_.Ejected(), IsEmpty());
  EXPECT_NE(health_.version(), before);
  for (int i = 0; i < 2; ++i) EXPECT_FALSE(health_.Failed(1, target_, Failure::kReset));
  EXPECT_TRUE(health_.Failed(1, target_, Failure::kReset));
  clock_.Advance(seconds(1));
  EXPECT_THAT(health_.TakeDue(), IsEmpty());
  clock_.Advance(seconds(1));
  EXPECT_EQ(health_.TakeDue().size(), 1U);
  health_.Probed(1, true);
  health_.Succeeded(1);  // a request's answer forgets all of it
  EXPECT_FALSE(health_.Failed(1, target_, Failure::kReset));
}

TEST_F(HealthTest, AProbeThatCouldNotBeSentSaysNothing) {
  health_.Failed(1, target_, Failure::kRefused);
  for (int i = 0; i < 200; ++i) {
    clock_.Advance(seconds(1));
    ASSERT_EQ(health_.TakeDue().size(), 1U) << i;
    health_.NotProbed(1);
    EXPECT_THAT(health_.TakeDue(), IsEmpty());
  }
  EXPECT_THAT(*health_.Ejected(), ElementsAre(1));
}

TEST_F(HealthTest, ForgetsWhoNeverComesBack) {
  health_.Failed(1, target_, Failure::kRefused);
  for (int i = 0; i < 100; ++i) {
    clock_.Advance(seconds(5));
    ASSERT_EQ(health_.TakeDue().size(), 1U) << i;
    health_.Probed(1, false);
  }
  clock_.Advance(seconds(5));
  EXPECT_THAT(health_.TakeDue(), IsEmpty());
  EXPECT_THAT(*health_.Ejected(), IsEmpty());
}

TEST(Target, IsParsedComparedAndPrinted) {
  for (const char* text : {"127.0.0.1:80", "[::1]:8080", "[2001:db8::1]:1"}) {
    const auto target = Target::Parse(text);
    ASSERT_TRUE(target.ok()) << text;
    EXPECT_EQ(target->ToString(), text);
    EXPECT_EQ(*target, *Target::Parse(text));
    EXPECT_EQ(target->Hash(), Target::Parse(text)->Hash());
  }
  for (const char* text : {"localhost:80", "127.0.0.1", "1.2.3.4:0", "", "[::1]"})
    EXPECT_FALSE(Target::Parse(text).ok()) << text;
  EXPECT_TRUE(Target::Resolve({"localhost", 80}).ok());
  EXPECT_NE(*Target::Parse("127.0.0.1:80"), *Target::Parse("127.0.0.1:81"));
}

TEST(Path, DotSegmentsInAnySpellingAreNotPlain) {
  for (const char* path :
       {"/v1/..", "/v1/../metrics", "/v1/./x", "/v1/%2e%2e/x", "/v1/.%2E/x", "/v1/..%2fx",
        "/v1/..;/x", "/v1/..\\x", "/v1/%5c..", "/v1/x%2fy", "/v1/.;a/x", "/v1/%00"})
    EXPECT_FALSE(http::IsPlainPath(path)) << path;
  for (const char* path : {"/", "/v1/chat/completions", "/v1/...", "/v1/a..b", "/v1/.hidden",
                           "/v1/x%20y", "/v1//x", "/v1/100%", "/v1/;x"})
    EXPECT_TRUE(http::IsPlainPath(path)) << path;
}

}  // namespace
}  // namespace llmd::relay
