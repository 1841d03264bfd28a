#include "llmd/snapshot.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace llmd {
namespace {

TEST(Snapshot, GivesTheLatestValue) {
  Snapshot<int> snapshot;
  EXPECT_EQ(snapshot.Load(), nullptr);
  snapshot.Publish(std::make_shared<const int>(1));
  EXPECT_EQ(*snapshot.Load(), 1);
  const uint64_t before = snapshot.version();
  snapshot.Publish(std::make_shared<const int>(2));
  EXPECT_EQ(*snapshot.Load(), 2);
  EXPECT_GT(snapshot.version(), before);
}

TEST(Snapshot, KeepsOldValuesAliveForThoseWhoHoldThem) {
  Snapshot<std::vector<int>> snapshot(std::make_shared<const std::vector<int>>(3, 7));
  const auto held = snapshot.Load();
  std::weak_ptr<const std::vector<int>> watched = held;
  snapshot.Publish(nullptr);
  EXPECT_EQ(held->at(2), 7);
  EXPECT_FALSE(watched.expired());
}

TEST(Snapshot, AReaderSeesEachPublish) {
  Snapshot<int> snapshot(std::make_shared<const int>(0));
  Snapshot<int>::Reader reader(snapshot);
  EXPECT_EQ(*reader.Load(), 0);
  const int* same = reader.Load().get();
  EXPECT_EQ(reader.Load().get(), same);
  snapshot.Publish(std::make_shared<const int>(5));
  EXPECT_EQ(*reader.Load(), 5);
  snapshot.Publish(nullptr);
  EXPECT_EQ(reader.Load(), nullptr);
}

TEST(Snapshot, ReadersNeverSeeTornOrOlderValues) {
  struct Pair {
    int a, b;
  };
  Snapshot<Pair> snapshot(std::make_shared<const Pair>(Pair{0, 0}));
  constexpr int kPublishes = 3000;
  std::vector<std::thread> readers;
  for (int t = 0; t < 3; ++t) {
    readers.emplace_back([&snapshot, t] {
      Snapshot<Pair>::Reader reader(snapshot);
      for (int last = 0; last < kPublishes;) {
        const auto value = t == 0 ? snapshot.Load() : reader.Load();
        ASSERT_EQ(value->a, value->b);
        ASSERT_GE(value->a, last);
        last = value->a;
      }
    });
  }
  for (int i = 1; i <= kPublishes; ++i) snapshot.Publish(std::make_shared<const Pair>(Pair{i, i}));
  for (auto& reader : readers) reader.join();
}

}  // namespace
}  // namespace llmd
