#include "stats_cell.h"

#include <gtest/gtest.h>

#include <thread>

namespace llmd::engine {
namespace {

struct Pair {
  uint64_t a = 0, b = 0, c = 0;
  int d = 0;
};

TEST(StatsCell, GivesBackWhatWasStored) {
  StatsCell<Pair> cell;
  EXPECT_EQ(cell.Load().a, 0u);
  cell.Store({1, 2, 3, 4});
  const Pair p = cell.Load();
  EXPECT_EQ(p.a + p.b + p.c + p.d, 10u);
}

TEST(StatsCell, NeverShowsHalfOfAValue) {
  StatsCell<Pair> cell;
  std::atomic<bool> over{false};
  std::thread reader([&] {
    uint64_t last = 0;
    while (!over) {
      const Pair p = cell.Load();
      ASSERT_EQ(p.b, 2 * p.a);
      ASSERT_EQ(p.c, 3 * p.a);
      ASSERT_GE(p.a, last);
      last = p.a;
    }
  });
  for (uint64_t i = 1; i <= 100000; ++i) cell.Store({i, 2 * i, 3 * i, 1});
  over = true;
  reader.join();
}

}  // namespace
}  // namespace llmd::engine
