#include "gateway/page_watch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>

namespace llmd::gateway {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::IsEmpty;

// Answers when the test says so.
class HeldFetch final : public sched::Fetch {
 public:
  void Get(const sched::EndpointInfo&, const sched::PageSpec&, Duration,
           std::function<void(StatusOr<std::string>)> done) override {
    waiting.push_back(std::move(done));
  }
  void Answer(StatusOr<std::string> reply) {
    const auto done = std::move(waiting.front());
    waiting.pop_front();
    done(std::move(reply));
  }
  std::deque<std::function<void(StatusOr<std::string>)>> waiting;
};

class PageWatchTest : public testing::Test {
 protected:
  static sched::EndpointInfo At(uint16_t port) {
    sched::EndpointInfo info;
    info.address = "10.0.0.1";
    info.port = port;
    return info;
  }
  // A read of the page that ends as told.
  void Read(uint16_t port, StatusOr<std::string> reply, Duration takes = {}) {
    watch.Get(At(port), {}, seconds(1), [this](const StatusOr<std::string>&) { ++told; });
    clock.Advance(takes);
    pages->Answer(std::move(reply));
  }
  std::vector<std::string> Silent() {
    watch.Look();
    return *watch.Silent();
  }
  static Status Late() { return DeadlineExceeded("no answer in time"); }

  std::shared_ptr<HeldFetch> pages = std::make_shared<HeldFetch>();
  FakeClock clock;
  PageWatch watch{pages, seconds(2), clock};
  int told = 0;
};

TEST_F(PageWatchTest, SilenceForTheLimitIsTold) {
  for (int i = 0; i < 3; ++i) {
    Read(1, std::string("well"));
    Read(2, Late(), seconds(1));
    EXPECT_EQ(Silent().empty(), i < 2) << i;
  }
  EXPECT_THAT(Silent(), ElementsAre("10.0.0.1:2"));
  EXPECT_EQ(told, 6);
  const uint64_t version = watch.version();
  Silent();
  EXPECT_EQ(watch.version(), version);
  Read(2, std::string("back"));
  EXPECT_THAT(Silent(), IsEmpty());
  EXPECT_NE(watch.version(), version);
}

TEST_F(PageWatchTest, AnErrorAndARefusalAreAnswers) {
  Read(1, std::string("well"));
  for (int i = 0; i < 5; ++i) Read(2, Unavailable("10.0.0.1:2 answered 404"), seconds(1));
  EXPECT_THAT(Silent(), IsEmpty());
}

// As when this process itself stood still: what it had asked comes too late.
TEST_F(PageWatchTest, OneReadThatFailsIsNotEnough) {
  Read(1, std::string("well"));
  Read(2, Late(), seconds(30));
  Read(1, std::string("well"));
  EXPECT_THAT(Silent(), IsEmpty());
}

TEST_F(PageWatchTest, WhenAllAreSilentNobodyIs) {
  for (int i = 0; i < 4; ++i) {
    Read(1, Late(), milliseconds(500));
    Read(2, Late(), milliseconds(500));
  }
  EXPECT_THAT(Silent(), IsEmpty());
}

TEST_F(PageWatchTest, ThoseThatNobodyReadsAreForgotten) {
  for (int i = 0; i < 3; ++i) Read(2, Late(), seconds(1));
  Read(1, std::string("well"));
  EXPECT_THAT(Silent(), ElementsAre("10.0.0.1:2"));
  clock.Advance(seconds(59));
  Read(1, std::string("well"));
  clock.Advance(seconds(5));
  EXPECT_THAT(Silent(), IsEmpty());
}

TEST_F(PageWatchTest, APageAtAnotherAddressSaysNothing) {
  Read(1, std::string("well"));
  const sched::PageSpec elsewhere{.address_label = "x"};
  for (int i = 0; i < 4; ++i) {
    watch.Get(At(2), elsewhere, seconds(1), [](const StatusOr<std::string>&) {});
    clock.Advance(seconds(1));
    pages->Answer(Late());
  }
  EXPECT_THAT(Silent(), IsEmpty());
}

TEST_F(PageWatchTest, LateAnswersFindItGone) {
  std::optional<StatusOr<std::string>> got;
  {
    PageWatch gone(pages, seconds(2), clock);
    gone.Get(At(1), {}, seconds(1), [&](StatusOr<std::string> reply) { got = std::move(reply); });
  }
  pages->Answer(std::string("late"));
  EXPECT_TRUE(got && got->ok());
}

}  // namespace
}  // namespace llmd::gateway
