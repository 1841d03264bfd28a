#include <gtest/gtest.h>

#include <thread>

#include "gateway/doors/client_bounds.h"
#include "gateway/doors/rate_limiter.h"
#include "support.h"

namespace llmd::doors {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

constexpr TimePoint kStart{std::chrono::hours(5)};

std::string Written(Duration duration) {
  char text[24];
  return std::string(text, WriteDuration(text, duration));
}

TEST(MinuteBudget, AllowsAMinutesWorthAtOnce) {
  MinuteBudget budget;
  budget.SetLimit(7);
  for (int i = 6; i >= 0; --i) {
    const BudgetState state = budget.Take(1, kStart);
    EXPECT_TRUE(state.allowed);
    EXPECT_EQ(state.remaining, i);
    EXPECT_EQ(state.limit, 7);
  }
  const BudgetState refused = budget.Take(1, kStart);
  EXPECT_FALSE(refused.allowed);
  EXPECT_EQ(refused.remaining, 0);
  EXPECT_NEAR(std::chrono::duration<double>(refused.retry_after).count(), 60.0 / 7, 1e-6);
  EXPECT_NEAR(std::chrono::duration<double>(refused.reset).count(), 60, 1e-6);
}

TEST(MinuteBudget, FillsEvenly) {
  MinuteBudget budget;
  budget.SetLimit(60);
  EXPECT_TRUE(budget.Take(60, kStart).allowed);
  EXPECT_FALSE(budget.Take(1, kStart + milliseconds(999)).allowed);
  EXPECT_TRUE(budget.Take(1, kStart + seconds(1)).allowed);
  EXPECT_FALSE(budget.Take(1, kStart + seconds(1)).allowed);
  EXPECT_TRUE(budget.Take(30, kStart + seconds(31)).allowed);
  EXPECT_EQ(budget.Look(kStart + minutes(3)).remaining, 60);
  // Idle time is not saved up beyond a minute's worth.
  EXPECT_TRUE(budget.Take(60, kStart + minutes(30)).allowed);
  EXPECT_FALSE(budget.Take(1, kStart + minutes(30)).allowed);
}

TEST(MinuteBudget, RefusalsTakeNothing) {
  MinuteBudget budget;
  budget.SetLimit(10);
  EXPECT_TRUE(budget.Take(8, kStart).allowed);
  for (int i = 0; i < 100; ++i) EXPECT_FALSE(budget.Take(3, kStart).allowed);
  EXPECT_TRUE(budget.Take(2, kStart).allowed);
}

TEST(MinuteBudget, GivesBackAndCharges) {
  MinuteBudget budget;
  budget.SetLimit(1000);
  EXPECT_TRUE(budget.Take(900, kStart).allowed);
  budget.Adjust(-800, kStart);
  EXPECT_NEAR(static_cast<double>(budget.Look(kStart).remaining), 900, 1);
  budget.Adjust(1900, kStart);  // 2,000 used: a minute in debt
  const BudgetState state = budget.Take(1, kStart + seconds(30));
  EXPECT_FALSE(state.allowed);
  EXPECT_NEAR(std::chrono::duration<double>(state.retry_after).count(), 30.06, 0.01);
  // Never more back than full.
  budget.Adjust(INT64_MIN, kStart);
  EXPECT_EQ(budget.Look(kStart).remaining, 1000);
  // Debt is bounded.
  budget.Adjust(INT64_MAX, kStart);
  EXPECT_EQ(budget.Look(kStart).reset, Duration(std::chrono::hours(1)));
}

TEST(MinuteBudget, MoreThanAMinutesWorthNeedsAFullBudget) {
  MinuteBudget budget;
  budget.SetLimit(100);
  EXPECT_TRUE(budget.Take(5000, kStart).allowed);
  EXPECT_FALSE(budget.Take(5000, kStart + seconds(59)).allowed);
  EXPECT_TRUE(budget.Take(5000, kStart + seconds(60)).allowed);
}

TEST(MinuteBudget, WithoutALimitIsOpen) {
  MinuteBudget budget;
  for (int i = 0; i < 1000; ++i) EXPECT_TRUE(budget.Take(INT64_MAX, kStart).allowed);
  EXPECT_EQ(budget.Take(1, kStart).limit, 0);
  budget.Adjust(5, kStart);
  budget.SetLimit(5);
  EXPECT_EQ(budget.Look(kStart).remaining, 5);
}

TEST(MinuteBudget, LetsThroughAsManyAsThereAreWithManyThreads) {
  MinuteBudget budget;
  budget.SetLimit(10'000);
  std::atomic<int> allowed{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 5000; ++i) allowed += budget.Take(1, kStart).allowed ? 1 : 0;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(allowed, 10'000);
}

TEST(WriteDuration, IsShort) {
  EXPECT_EQ(Written(Duration::zero()), "0s");
  EXPECT_EQ(Written(Duration(-5)), "0s");
  EXPECT_EQ(Written(Duration(1)), "1ms");
  EXPECT_EQ(Written(milliseconds(20)), "20ms");
  EXPECT_EQ(Written(seconds(1)), "1s");
  EXPECT_EQ(Written(milliseconds(1500)), "1.5s");
  EXPECT_EQ(Written(milliseconds(59'050)), "59.05s");
  EXPECT_EQ(Written(milliseconds(59'005)), "59.005s");
  EXPECT_EQ(Written(minutes(6)), "6m0s");
  EXPECT_EQ(Written(minutes(60) + milliseconds(250)), "60m0.25s");
  EXPECT_EQ(Written(Duration::max()).size() <= 24, true);
}

class BoundsTest : public ::testing::Test {
 protected:
  MetricsRegistry registry_;
  DoorMetrics metrics_{registry_};
  Refusal refusal_;
};

TEST_F(BoundsTest, CountsConnectionsOfOneAndAll) {
  ClientBounds bounds({.connections = 2}, {.connections = 3}, metrics_);
  ClientShare a = bounds.Open(Ip("1.1.1.1"), refusal_), b = bounds.Open(Ip("1.1.1.1"), refusal_);
  EXPECT_TRUE(a.open() && b.open());
  EXPECT_FALSE(bounds.Open(Ip("1.1.1.1"), refusal_).open());
  EXPECT_EQ(refusal_.status, 429);
  ClientShare c = bounds.Open(Ip("2.2.2.2"), refusal_);
  EXPECT_TRUE(c.open());
  EXPECT_FALSE(bounds.Open(Ip("3.3.3.3"), refusal_).open());
  EXPECT_EQ(refusal_.status, 503);
  EXPECT_EQ(bounds.clients(), 2u);
  a.Close();
  a.Close();
  EXPECT_TRUE(bounds.Open(Ip("1.1.1.1"), refusal_).open());
  EXPECT_EQ(bounds.Total(Bound::kConnections), 2);
  const std::string page = registry_.Expose();
  EXPECT_NE(page.find("llmd_gateway_bounded_total{bound=\"connections\",scope=\"client\"} 1.0"),
            std::string::npos);
}

TEST_F(BoundsTest, CountsBytesAndGivesThemBack) {
  ClientBounds bounds({.body_bytes = 100}, {.connections = 10, .body_bytes = 150}, metrics_);
  ClientShare a = bounds.Open(Ip("1.1.1.1"), refusal_), b = bounds.Open(Ip("1.1.1.1"), refusal_),
              c = bounds.Open(Ip("2.2.2.2"), refusal_);
  EXPECT_TRUE(a.Take(Bound::kBodyBytes, 60, refusal_));
  EXPECT_FALSE(b.Take(Bound::kBodyBytes, 41, refusal_));
  EXPECT_EQ(refusal_.status, 429);
  EXPECT_EQ(refusal_.retry_after_s, 1);
  EXPECT_TRUE(b.Take(Bound::kBodyBytes, 40, refusal_));
  EXPECT_FALSE(c.Take(Bound::kBodyBytes, 51, refusal_));
  EXPECT_EQ(refusal_.status, 503);
  EXPECT_EQ(bounds.Total(Bound::kBodyBytes), 100);
  a.GiveBack(Bound::kBodyBytes, 1000);  // no more than was taken
  EXPECT_EQ(bounds.Total(Bound::kBodyBytes), 40);
  {
    const ClientShare moved = std::move(b);
  }
  EXPECT_EQ(bounds.Total(Bound::kBodyBytes), 0);
  EXPECT_TRUE(c.Take(Bound::kHeaderBytes, 1 << 30, refusal_));
}

TEST_F(BoundsTest, TakesOneIpv6NetworkForOneClient) {
  ClientBounds bounds({.connections = 1}, {.connections = 100}, metrics_);
  const ClientShare a = bounds.Open(Ip("2001:db8:0:1::1"), refusal_);
  EXPECT_FALSE(bounds.Open(Ip("2001:db8:0:1::2"), refusal_).open());
  EXPECT_TRUE(bounds.Open(Ip("2001:db8:0:2::2"), refusal_).open());
}

TEST_F(BoundsTest, ForgetsClientsThatLeft) {
  ClientBounds bounds({}, {.connections = 64}, metrics_);
  for (int round = 0; round < 200; ++round) {
    std::vector<ClientShare> shares;
    for (int i = 0; i < 32; ++i) {
      const std::string ip = "10.0." + std::to_string(round) + "." + std::to_string(i);
      shares.push_back(bounds.Open(Ip(ip), refusal_));
      ASSERT_TRUE(shares.back().open()) << ip;
    }
    ASSERT_EQ(bounds.clients(), 32u);
  }
  EXPECT_EQ(bounds.clients(), 0u);
  EXPECT_EQ(bounds.Total(Bound::kConnections), 0);
}

TEST_F(BoundsTest, IsRightWithManyThreads) {
  ClientBounds bounds({.connections = 50, .body_bytes = 1000}, {.connections = 100}, metrics_);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&bounds, t] {
      Refusal refusal;
      for (int i = 0; i < 3000; ++i) {
        ClientShare share = bounds.Open(Ip("10.0.0." + std::to_string((i + t) % 7)), refusal);
        if (share.open()) (void)share.Take(Bound::kBodyBytes, 400, refusal);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(bounds.clients(), 0u);
  EXPECT_EQ(bounds.Total(Bound::kConnections), 0);
  EXPECT_EQ(bounds.Total(Bound::kBodyBytes), 0);
}

}  // namespace
}  // namespace llmd::doors
