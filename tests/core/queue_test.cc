#include "llmd/queue.h"

#include <gtest/gtest.h>

#include <atomic>
#include <set>
#include <thread>
#include <vector>

namespace llmd {
namespace {

using std::chrono::milliseconds;

TimePoint Past() {
  return SystemClock().Now() - milliseconds(1);
}
TimePoint Soon() {
  return SystemClock().Now() + milliseconds(5);
}
TimePoint Later() {
  return SystemClock().Now() + std::chrono::seconds(60);
}

TEST(BoundedQueue, GivesItemsInOrderAroundTheRing) {
  BoundedQueue<int> queue(3);
  int next_in = 0, next_out = 0;
  for (int round = 0; round < 10; ++round) {
    EXPECT_TRUE(queue.TryPush(next_in++));
    EXPECT_TRUE(queue.TryPush(next_in++));
    EXPECT_EQ(queue.size(), 2u);
    EXPECT_EQ(queue.TryPop(), next_out++);
    EXPECT_EQ(queue.PopUntil(Past()), next_out++);
  }
  EXPECT_EQ(queue.TryPop(), std::nullopt);
}

TEST(BoundedQueue, LeavesARefusedItemAsItWas) {
  BoundedQueue<std::unique_ptr<int>> queue(1);
  EXPECT_TRUE(queue.TryPush(std::make_unique<int>(1)));
  auto item = std::make_unique<int>(2);
  EXPECT_FALSE(queue.TryPush(std::move(item)));
  EXPECT_FALSE(queue.PushUntil(std::move(item), Soon()));
  ASSERT_NE(item, nullptr);
  EXPECT_EQ(*item, 2);
  EXPECT_EQ(**queue.TryPop(), 1);
  EXPECT_TRUE(queue.PushUntil(std::move(item), Soon()));
  EXPECT_EQ(item, nullptr);
}

TEST(BoundedQueue, FreesAnItemWhenItIsTaken) {
  BoundedQueue<std::shared_ptr<int>> queue(2);
  auto item = std::make_shared<int>(1);
  queue.TryPush(item);
  EXPECT_EQ(item.use_count(), 2);
  queue.TryPop();
  EXPECT_EQ(item.use_count(), 1);
}

TEST(BoundedQueue, ClosingRefusesPushesAndDrainsPops) {
  BoundedQueue<int> queue(2);
  queue.TryPush(1);
  queue.Close();
  queue.Close();
  EXPECT_FALSE(queue.TryPush(2));
  EXPECT_FALSE(queue.PushUntil(2, Later()));
  EXPECT_FALSE(queue.drained());
  EXPECT_EQ(queue.PopUntil(Later()), 1);
  EXPECT_TRUE(queue.drained());
  EXPECT_EQ(queue.PopUntil(Later()), std::nullopt);
}

TEST(BoundedQueue, PopGivesUpAtItsDeadline) {
  BoundedQueue<int> queue(1);
  EXPECT_EQ(queue.PopUntil(Soon()), std::nullopt);
  EXPECT_FALSE(queue.closed());
}

TEST(BoundedQueue, ClosingWakesWaiters) {
  BoundedQueue<int> queue(1);
  std::thread consumer([&] { EXPECT_EQ(queue.PopUntil(Later()), std::nullopt); });
  queue.Close();
  consumer.join();
  BoundedQueue<int> full(1);
  full.TryPush(1);
  std::thread producer([&] { EXPECT_FALSE(full.PushUntil(2, Later())); });
  full.Close();
  producer.join();
}

TEST(BoundedQueue, LosesAndDoublesNothingBetweenManyThreads) {
  constexpr int kProducers = 3, kConsumers = 3, kItems = 5000;
  BoundedQueue<int> queue(16);
  std::vector<std::vector<int>> taken(kConsumers);
  std::vector<std::thread> consumers, producers;
  for (auto& mine : taken) {
    consumers.emplace_back([&queue, &mine] {
      while (auto item = queue.PopUntil(Later())) mine.push_back(*item);
    });
  }
  for (int p = 0; p < kProducers; ++p) {
    producers.emplace_back([&queue, p] {
      for (int i = 0; i < kItems; ++i) ASSERT_TRUE(queue.PushUntil(p * kItems + i, Later()));
    });
  }
  for (auto& producer : producers) producer.join();
  queue.Close();
  for (auto& consumer : consumers) consumer.join();
  std::set<int> all;
  for (const auto& mine : taken) {
    // What one producer pushed comes to one consumer in its order.
    std::vector<int> last(kProducers, -1);
    for (const int item : mine) {
      EXPECT_LT(last[item / kItems], item);
      last[item / kItems] = item;
      EXPECT_TRUE(all.insert(item).second);
    }
  }
  EXPECT_EQ(all.size(), static_cast<size_t>(kProducers * kItems));
}

}  // namespace
}  // namespace llmd
