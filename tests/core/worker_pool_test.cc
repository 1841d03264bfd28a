#include "llmd/worker_pool.h"

#include <gtest/gtest.h>
#include <pthread.h>

#include <atomic>
#include <future>

namespace llmd {
namespace {

std::unique_ptr<WorkerPool> Make(size_t threads, size_t max_queued) {
  auto pool =
      WorkerPool::Create({.name = "tokenizer-of-x", .threads = threads, .max_queued = max_queued});
  EXPECT_TRUE(pool.ok());
  return std::move(*pool);
}

TEST(WorkerPool, RunsEveryAcceptedJobBeforeStopReturns) {
  auto pool = Make(3, 2000);
  std::atomic<int> ran{0};
  for (int i = 0; i < 1000; ++i) EXPECT_TRUE(pool->Submit([&] { ++ran; }).ok());
  pool->Stop();
  EXPECT_EQ(ran, 1000);
  EXPECT_EQ(pool->queued(), 0u);
  EXPECT_EQ(pool->threads(), 3u);
}

TEST(WorkerPool, RefusesJobsBeyondItsBoundAndAfterStop) {
  auto pool = Make(1, 1);
  std::promise<void> started, release;
  ASSERT_TRUE(pool->Submit([&] {
                    started.set_value();
                    release.get_future().wait();
                  })
                  .ok());
  started.get_future().wait();
  EXPECT_TRUE(pool->Submit([] {}).ok());
  EXPECT_EQ(pool->queued(), 1u);
  const Status full = pool->Submit([] { ADD_FAILURE() << "refused jobs never run"; });
  EXPECT_EQ(full.code(), StatusCode::kResourceExhausted);
  release.set_value();
  pool->Stop();
  pool->Stop();
  EXPECT_EQ(pool->Submit([] { ADD_FAILURE(); }).code(), StatusCode::kCancelled);
}

TEST(WorkerPool, NamesItsThreads) {
  auto pool = Make(1, 4);
  std::promise<std::string> name;
  ASSERT_TRUE(pool->Submit([&] {
                    char text[16] = {};
                    pthread_getname_np(pthread_self(), text, sizeof(text));
                    name.set_value(text);
                  })
                  .ok());
  EXPECT_EQ(name.get_future().get(), "tokenizer-of-x/");
}

TEST(WorkerPool, RefusesZeroes) {
  EXPECT_EQ(WorkerPool::Create({.threads = 0}).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(WorkerPool::Create({.max_queued = 0}).status().code(), StatusCode::kInvalidArgument);
}

TEST(WorkerPool, JobsMaySubmitJobs) {
  auto pool = Make(1, 4);
  std::promise<void> done;
  ASSERT_TRUE(
      pool->Submit([&] { EXPECT_TRUE(pool->Submit([&] { done.set_value(); }).ok()); }).ok());
  done.get_future().wait();
}

}  // namespace
}  // namespace llmd
