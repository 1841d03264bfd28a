#include "llmd/http/runtime.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

namespace llmd::http {
namespace {

Task<void> Count(std::atomic<int>& count) {
  (void)co_await SleepFor(std::chrono::microseconds(1));
  ++count;
}

Task<void> SleepLong(std::atomic<int>& cancelled) {
  const Status status = co_await SleepFor(std::chrono::hours(1));
  if (status.code() == StatusCode::kCancelled) ++cancelled;
}

TEST(Runtime, RefusesZeroThreads) {
  EXPECT_EQ(Runtime::Create(0).status().code(), StatusCode::kInvalidArgument);
}

TEST(Runtime, GivesTheLoopsInTurn) {
  auto runtime = *Runtime::Create(2);
  EXPECT_EQ(runtime->threads(), 2);
  EXPECT_NE(&runtime->NextLoop(), &runtime->NextLoop());
}

TEST(Runtime, BlockOnWaitsForTheEnd) {
  auto runtime = *Runtime::Create(2);
  std::atomic<int> count{0};
  for (int i = 0; i < 10; ++i) runtime->BlockOn(Count(count));
  EXPECT_EQ(count, 10);
}

TEST(Runtime, PostRunsOnTheLoop) {
  auto runtime = *Runtime::Create(1);
  std::thread::id id;
  runtime->Post(runtime->loop(0), [&] { id = std::this_thread::get_id(); });
  std::atomic<int> count{0};
  runtime->BlockOn(Count(count));
  EXPECT_NE(id, std::thread::id());
  EXPECT_NE(id, std::this_thread::get_id());
}

TEST(Runtime, StopCancelsWhatSleeps) {
  std::atomic<int> cancelled{0};
  auto runtime = *Runtime::Create(2);
  for (int i = 0; i < 4; ++i) runtime->Spawn(SleepLong(cancelled));
  runtime->Stop();
  EXPECT_EQ(cancelled, 4);
}

}  // namespace
}  // namespace llmd::http
