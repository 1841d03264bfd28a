// The access log's rings, and what a reader that does not read costs: lines, never a loop's time.
#include "common/access_log.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <thread>

#include "common/json_line.h"
#include "llmd/json.h"
#include "llmd/log_fd.h"

namespace llmd::services {
namespace {

using ::testing::ElementsAre;

class Lines final : public LogSink {
 public:
  void Write(std::string_view line) override { all.emplace_back(line); }
  std::vector<std::string> all;
};

std::string Line(int n) {
  JsonLine line;
  line.Begin(1'700'000'000'000'000'000, "access", "request");
  line.Number("n", n);
  return std::string(line.End());
}

TEST(AccessLog, HandsOverTheLinesOfEachLaneInOrder) {
  const auto sink = std::make_shared<Lines>();
  {
    AccessLog log(sink, {.lanes = 2});
    for (int i = 0; i < 1000; ++i) log.lane(i % 2).Write(Line(i));
  }
  ASSERT_EQ(sink->all.size(), 1000U);
  int next[2] = {0, 1};
  for (const std::string& text : sink->all) {
    const auto parsed = json::Parse(text);
    ASSERT_TRUE(parsed.ok()) << text;
    const auto n = static_cast<int>(parsed->Find("n")->AsInt());
    EXPECT_EQ(n, next[n % 2]);
    next[n % 2] = n + 2;
  }
}

// A sink that takes a line only when it is told to.
class Gate final : public LogSink {
 public:
  void Write(std::string_view line) override {
    std::unique_lock lock(mutex);
    ++waiting;
    changed.notify_all();
    changed.wait(lock, [this] { return open; });
    all.emplace_back(line);
  }
  std::mutex mutex;
  std::condition_variable changed;
  int waiting = 0;
  bool open = false;
  std::vector<std::string> all;
};

TEST(AccessLog, DropsAndCountsWhatFindsNoRoomInTheRing) {
  const auto gate = std::make_shared<Gate>();
  uint64_t dropped = 0;
  {
    AccessLog log(gate, {.lanes = 1, .lane_bytes = 1000});
    log.lane(0).Write(std::string(96, 'a'));
    {
      std::unique_lock lock(gate->mutex);
      gate->changed.wait(lock, [&] { return gate->waiting == 1; });
    }
    // The ring is empty again: of lines of 100 bytes it holds ten.
    for (int i = 0; i < 15; ++i) log.lane(0).Write(std::string(96, char('b' + i)));
    dropped = log.dropped();
    {
      const std::lock_guard lock(gate->mutex);
      gate->open = true;
    }
    gate->changed.notify_all();
  }
  EXPECT_EQ(dropped, 5U);
  ASSERT_EQ(gate->all.size(), 11U);
  EXPECT_EQ(gate->all.front(), std::string(96, 'a'));
  EXPECT_EQ(gate->all.back(), std::string(96, 'k'));  // a later one that is dropped breaks none
}

TEST(AccessLog, ALineLongerThanTheRingIsDropped) {
  const auto sink = std::make_shared<Lines>();
  {
    AccessLog log(sink, {.lanes = 1, .lane_bytes = 64});
    log.lane(0).Write(std::string(100, 'x'));
    log.lane(0).Write("short\n");
    EXPECT_EQ(log.dropped(), 1U);
  }
  EXPECT_THAT(sink->all, ElementsAre("short\n"));
}

// A pipe that is full, as the standard output of a process whose reader stands still.
class FullPipe {
 public:
  FullPipe() {
    EXPECT_EQ(::pipe2(ends_, O_CLOEXEC | O_NONBLOCK), 0);
    const std::string block(4096, '.');
    ssize_t n = 0;
    while ((n = ::write(ends_[1], block.data(), block.size())) > 0) filled_ += size_t(n);
    EXPECT_EQ(::fcntl(ends_[1], F_SETFL, 0), 0);  // whoever writes now waits
    EXPECT_EQ(::fcntl(ends_[0], F_SETFL, 0), 0);
  }
  ~FullPipe() {
    ::close(ends_[0]);
    if (ends_[1] >= 0) ::close(ends_[1]);
  }
  int fd() const { return ends_[1]; }
  void CloseWriting() {
    ::close(ends_[1]);
    ends_[1] = -1;
  }
  // All that comes behind the filling, to the end.
  std::string ReadRest() {
    std::string all;
    char buffer[4096];
    ssize_t n = 0;
    while ((n = ::read(ends_[0], buffer, sizeof buffer)) > 0) all.append(buffer, size_t(n));
    return all.substr(filled_);
  }

 private:
  int ends_[2] = {-1, -1};
  size_t filled_ = 0;
};

TEST(AccessLog, APipeThatNobodyReadsHoldsUpNobodyAndItsLossIsCounted) {
  constexpr int kLines = 20'000;
  FullPipe pipe;
  uint64_t dropped = 0;
  std::string read;
  std::thread reader;
  {
    const auto out = FdLog::Create(pipe.fd(), {.max_waiting_bytes = 64 << 10});
    {
      AccessLog log(out, {.lanes = 1, .lane_bytes = 64 << 10});
      // Would not end if a line waited for the pipe.
      for (int i = 0; i < kLines; ++i) log.lane(0).Write(Line(i));
      dropped = log.dropped();
      // What is left in the ring is handed over at the end, without waiting either.
    }
    dropped += out->dropped();
    EXPECT_GT(dropped, 0U);
    EXPECT_LT(dropped, uint64_t{kLines});
    reader = std::thread([&] { read = pipe.ReadRest(); });
  }
  pipe.CloseWriting();
  reader.join();
  uint64_t taken = 0;
  bool told = false;
  for (size_t at = 0; at < read.size();) {
    const size_t end = read.find('\n', at);
    ASSERT_NE(end, std::string::npos) << "a line is cut";
    const auto line = json::Parse(std::string_view(read).substr(at, end - at));
    ASSERT_TRUE(line.ok()) << read.substr(at, end - at);
    if (line->Find("n") != nullptr) {
      ++taken;
    } else {
      told = true;  // "N lines were dropped"
    }
    at = end + 1;
  }
  EXPECT_TRUE(told);
  EXPECT_EQ(taken + dropped, uint64_t{kLines});
}

TEST(JsonLine, WritesWhatParses) {
  JsonLine line;
  for (int i = 0; i < 2; ++i) {
    line.Begin(1'747'412'164'000'000'000 + i, "access", "request");
    line.Text("path", "/a\"b\\\xE9");
    line.Text("long", std::string(JsonLine::kMaxText - 1, 'x') + "\xC3\xA4");
    line.Seconds("seconds", std::chrono::microseconds(1'000'042));
    line.Flag("cut", true);
    const auto parsed = json::Parse(line.End());
    ASSERT_TRUE(parsed.ok()) << parsed.status().ToString();
    EXPECT_EQ(parsed->Find("ts")->AsString(), "2025-05-16T16:16:04Z");
    EXPECT_EQ(parsed->Find("long")->AsString(), std::string(JsonLine::kMaxText - 1, 'x'));
    EXPECT_DOUBLE_EQ(parsed->Find("seconds")->AsDouble(), 1.000042);
    EXPECT_TRUE(parsed->Find("cut")->AsBool());
  }
}

}  // namespace
}  // namespace llmd::services
