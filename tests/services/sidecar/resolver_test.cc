#include "sidecar/resolver.h"

#include <gtest/gtest.h>

#include "services/sidecar/fake_call.h"

namespace llmd::sidecar {
namespace {

using std::chrono::seconds;

class ResolverTest : public ::testing::Test {
 protected:
  std::optional<StatusOr<relay::Target>> Ask(const std::string& host) {
    return resolver_.Ask(call_, {host, 80});
  }
  void Run() {
    for (const auto& job : std::exchange(jobs_, {})) job();
    loop_.RunPosts();
  }

  FakeLoop loop_;
  FakeCall& call_ = loop_.Make("GET", "/", {}, "");
  std::vector<std::function<void()>> jobs_;
  bool full_ = false, fails_ = false;
  int looked_up_ = 0, found_ = 0;
  Resolver resolver_{
      loop_,
      [this](const http::HostPort&) -> StatusOr<relay::Target> {
        ++looked_up_;
        if (fails_) return Unavailable("cannot resolve");
        return relay::Target::Parse("10.0.0." + std::to_string(looked_up_) + ":80");
      },
      [this](std::function<void()> job) {
        if (full_) return ResourceExhausted("the queue is full");
        jobs_.push_back(std::move(job));
        return OkStatus();
      },
      [this](relay::Call&, const http::HostPort&, const StatusOr<relay::Target>&) { ++found_; }};
};

TEST_F(ResolverTest, KeepsAnAddressAndLooksItUpAgainBehindItsBack) {
  EXPECT_FALSE(Ask("a"));
  EXPECT_FALSE(Ask("a"));
  Run();
  EXPECT_EQ(found_, 2);
  EXPECT_EQ(looked_up_, 1);
  EXPECT_EQ((**Ask("a")).ToString(), "10.0.0.1:80");
  loop_.Advance(seconds(31));
  EXPECT_EQ((**Ask("a")).ToString(), "10.0.0.1:80") << "old, but good enough meanwhile";
  Run();
  EXPECT_EQ((**Ask("a")).ToString(), "10.0.0.2:80");
  loop_.Advance(seconds(61));
  EXPECT_FALSE(Ask("a")) << "too old";
}

TEST_F(ResolverTest, AFailureIsKeptForASecond) {
  fails_ = true;
  EXPECT_FALSE(Ask("a"));
  Run();
  EXPECT_FALSE(Ask("a")->ok());
  EXPECT_EQ(looked_up_, 1);
  fails_ = false;
  loop_.Advance(seconds(2));
  EXPECT_FALSE(Ask("a"));
  Run();
  EXPECT_TRUE(Ask("a")->ok());
}

TEST_F(ResolverTest, AFullQueueIsSaidAndALostLookUpIsBegunAnew) {
  full_ = true;
  EXPECT_EQ(Ask("a")->status().code(), StatusCode::kResourceExhausted);
  full_ = false;
  EXPECT_FALSE(Ask("a"));
  EXPECT_EQ(jobs_.size(), 1u);
  loop_.Advance(seconds(31));
  EXPECT_FALSE(Ask("a"));
  EXPECT_EQ(jobs_.size(), 2u);
}

TEST_F(ResolverTest, NamesAndThoseWhoWaitAreBounded) {
  for (size_t i = 0; i < Resolver::kMaxNames; ++i) EXPECT_FALSE(Ask("n" + std::to_string(i)));
  EXPECT_EQ(Ask("one-more")->status().code(), StatusCode::kUnavailable);
  Run();
  EXPECT_FALSE(Ask("one-more")) << "the oldest makes room";
  for (size_t i = 1; i < Resolver::kMaxWaiting; ++i) EXPECT_FALSE(Ask("one-more"));
  EXPECT_EQ(Ask("one-more")->status().code(), StatusCode::kUnavailable);
}

}  // namespace
}  // namespace llmd::sidecar
