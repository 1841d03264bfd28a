#include "backend/cpu/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <ctime>
#include <memory>
#include <thread>
#include <vector>

namespace llmd::engine::cpu {
namespace {

TEST(ThreadPool, VisitsEveryIndexOnce) {
  for (int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.size(), threads);
    for (int count : {0, 1, 2, 7, 64, 1000}) {
      for (int grain : {1, 4, 100}) {
        std::vector<std::atomic<int>> seen(count);
        pool.For(count, grain, [&](int thread, int begin, int end) {
          EXPECT_LT(thread, threads);
          for (int i = begin; i < end; ++i) seen[i].fetch_add(1);
        });
        for (int i = 0; i < count; ++i)
          ASSERT_EQ(seen[i].load(), 1) << threads << " " << count << " " << grain;
      }
    }
  }
}

TEST(ThreadPool, SurvivesManyShortLoops) {
  ThreadPool pool(4);
  int64_t total = 0;
  for (int round = 0; round < 20000; ++round) {
    std::atomic<int> sum{0};
    pool.For(5, 1, [&](int, int begin, int end) {
      for (int i = begin; i < end; ++i) sum.fetch_add(i + 1, std::memory_order_relaxed);
    });
    total += sum.load();
  }
  EXPECT_EQ(total, 15 * 20000);
}

// A thread that looks for more work of a loop that has just ended must not take an index of the
// next one for its own: the end of a short loop lies inside a long one.
TEST(ThreadPool, KeepsLoopsOfUnequalLengthApart) {
  ThreadPool pool(4);
  std::vector<int> seen(96);
  for (int round = 0; round < 300000; ++round) {
    int count = round % 2 == 0 ? 3 : static_cast<int>(seen.size());
    pool.For(count, 1, [&](int, int begin, int end) {
      for (int i = begin; i < end; ++i) ++seen[i];
    });
  }
  for (size_t i = 0; i < seen.size(); ++i) ASSERT_EQ(seen[i], i < 3 ? 300000 : 150000) << i;
}

TEST(ThreadPool, ResultsAreVisibleToTheCaller) {
  ThreadPool pool(3);
  std::vector<int> plain(513);
  for (int round = 0; round < 200; ++round) {
    pool.For(static_cast<int>(plain.size()), 1, [&](int, int begin, int end) {
      for (int i = begin; i < end; ++i) plain[i] = i * round;
    });
    for (size_t i = 0; i < plain.size(); ++i) ASSERT_EQ(plain[i], static_cast<int>(i) * round);
  }
}

TEST(ThreadPool, RunsSmallLoopsOnTheCaller) {
  ThreadPool pool(4);
  std::thread::id caller = std::this_thread::get_id(), seen;
  pool.For(8, 8, [&](int thread, int begin, int end) {
    seen = std::this_thread::get_id();
    EXPECT_EQ(thread, 0);
    EXPECT_EQ(end - begin, 8);
  });
  EXPECT_EQ(seen, caller);
}

// An idle pool must sleep: its process uses next to no CPU time over an idle while.
TEST(ThreadPool, SleepsWhenIdle) {
  ThreadPool pool(4);
  std::atomic<int> sum{0};
  pool.For(64, 1, [&](int, int begin, int end) { sum += end - begin; });
  EXPECT_EQ(sum.load(), 64);
  auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(5);
  bool slept = false;
  while (!slept && std::chrono::steady_clock::now() < deadline) {
    std::clock_t before = std::clock();
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    slept = std::clock() - before < CLOCKS_PER_SEC / 100;
  }
  EXPECT_TRUE(slept);
  pool.For(64, 1, [&](int, int begin, int end) { sum += end - begin; });
  EXPECT_EQ(sum.load(), 128) << "wakes again";
}

TEST(UsableCores, IsAtLeastOne) {
  EXPECT_GE(UsableCores(), 1);
  EXPECT_LE(UsableCores(), 4096);
}

}  // namespace
}  // namespace llmd::engine::cpu
