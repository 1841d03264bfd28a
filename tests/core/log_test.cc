#include "llmd/log.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <thread>

#include "llmd/log_fd.h"

namespace llmd {
namespace {

class RawSink final : public LogSink {
 public:
  void Write(std::string_view line) override { text += line; }
  std::string text;
};

TEST(Logger, WritesTheLayoutOfTheField) {
  const FakeClock clock(1'747'412'104'982'282'940);
  const auto sink = std::make_shared<RawSink>();
  const Logger log = Logger(sink, LogLevel::kDebug, clock).Named("PD").With("x-request-id", "5e1c");
  log.Log(LogLevel::kDebug, "a \"b\"", {{"plugin", "queue"}, {"score", 0.5}, {"n", 3}});
  const int line = __LINE__ - 1;
  EXPECT_EQ(sink->text,
            "{\"level\":\"Level(-4)\",\"ts\":\"2025-05-16T16:15:04Z\",\"logger\":\"PD\",\"caller\":"
            "\"core/log_test.cc:" +
                std::to_string(line) +
                "\",\"msg\":\"a "
                "\\\"b\\\"\",\"x-request-id\":\"5e1c\",\"plugin\":\"queue\","
                "\"score\":0.5,\"n\":3}\n");
}

TEST(Logger, NamesLevelsAsZap) {
  const auto sink = std::make_shared<MemoryLogSink>();
  const Logger log(sink, LogLevel::kTrace);
  log.Error("e");
  log.Warn("w");
  log.Info("i");
  for (const LogLevel level :
       {LogLevel{1}, LogLevel::kDefault, LogLevel::kVerbose, LogLevel::kDebug, LogLevel::kTrace}) {
    log.Log(level, "m");
  }
  std::vector<std::string> levels;
  for (const json::Value& line : sink->Lines()) levels.push_back(line["level"].AsString());
  EXPECT_EQ(levels, (std::vector<std::string>{"error", "warn", "info", "debug", "Level(-2)",
                                              "Level(-3)", "Level(-4)", "Level(-5)"}));
}

TEST(Logger, WritesOnlyUpToItsLevelWhichCopiesShare) {
  const auto sink = std::make_shared<MemoryLogSink>();
  const Logger log(sink, LogLevel::kDefault);
  const Logger child = log.Named("a").Named("b");
  child.Log(LogLevel::kDebug, "hidden");
  EXPECT_FALSE(child.Enabled(LogLevel::kDebug));
  log.SetLevel(LogLevel::kDebug);
  child.Log(LogLevel::kDebug, "shown");
  child.Log(LogLevel::kTrace, "hidden");
  log.SetLevel(LogLevel::kInfo);
  child.Error("always");
  const auto lines = sink->Lines();
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0]["msg"].AsString(), "shown");
  EXPECT_EQ(lines[0]["logger"].AsString(), "a.b");
  EXPECT_EQ(lines[1]["msg"].AsString(), "always");
}

TEST(Logger, TheDefaultOneWritesNowhere) {
  const Logger log;
  EXPECT_FALSE(log.Enabled(LogLevel::kError));
  log.Error("nothing");
  log.SetLevel(LogLevel::kTrace);
  log.Info("nothing");
}

TEST(Logger, CutsHugeLinesToValidOnes) {
  const auto sink = std::make_shared<MemoryLogSink>();
  const Logger log(sink, LogLevel::kInfo);
  log.Info(std::string(3 << 20, 'm'), {{"k", "v"}});
  log.Info("short", {{"body", json::Array{std::string(2 << 20, 'x')}}});
  const auto lines = sink->Lines();
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0]["msg"].AsString(), std::string(4096, 'm'));
  EXPECT_GT(lines[0]["droppedBytes"].AsInt(), 2 << 20);
  EXPECT_EQ(lines[1]["msg"].AsString(), "short");
  EXPECT_TRUE(lines[1]["body"].is_null());
}

TEST(Logger, CutsLongTextsBetweenCharactersUnlessDebugging) {
  const auto sink = std::make_shared<MemoryLogSink>();
  const std::string id = "x" + std::string(60'000, 'i'), accents = [] {
    std::string out = "x";
    for (int i = 0; i < 3000; ++i) out += "\xC3\xA9";
    return out;
  }();
  const Logger log = Logger(sink, LogLevel::kDebug).With("x-request-id", id);
  log.Info("a", {{"path", accents}, {"short", std::string(4096, 's')}});
  log.Log(LogLevel::kDebug, "b", {{"path", accents}});
  const auto lines = sink->Lines();
  EXPECT_EQ(lines[0]["x-request-id"].AsString(), id.substr(0, 4096) + "... 60001 bytes");
  EXPECT_EQ(lines[0]["path"].AsString(), accents.substr(0, 4095) + "... 6001 bytes");
  EXPECT_EQ(lines[0]["short"].AsString(), std::string(4096, 's'));
  EXPECT_EQ(lines[1]["path"].AsString(), accents);
}

TEST(Logger, RepairsBytesThatAreNoUtf8) {
  const auto sink = std::make_shared<MemoryLogSink>();
  Logger(sink, LogLevel::kInfo).Info("a\xFF\n", {{"k\"", "\x80"}});
  const auto lines = sink->Lines();
  EXPECT_EQ(lines[0]["msg"].AsString(), "a\xEF\xBF\xBD\n");
  EXPECT_EQ(lines[0]["k\""].AsString(), "\xEF\xBF\xBD");
}

TEST(FdLogSink, WritesWholeLinesFromManyThreads) {
  int fds[2];
  ASSERT_EQ(pipe(fds), 0);
  constexpr int kThreads = 4, kLines = 200;
  std::string text;
  std::thread reader([&] {
    char buffer[4096];
    for (ssize_t n = 0; (n = read(fds[0], buffer, sizeof(buffer))) > 0;)
      text.append(buffer, static_cast<size_t>(n));
  });
  {
    const Logger log(FdLogSink(fds[1]), LogLevel::kInfo);
    std::vector<std::thread> writers;
    for (int t = 0; t < kThreads; ++t) {
      writers.emplace_back([&log] {
        for (int i = 0; i < kLines; ++i) log.Info("line", {{"pad", std::string(5000, 'p')}});
      });
    }
    for (auto& writer : writers) writer.join();
  }
  close(fds[1]);
  reader.join();
  close(fds[0]);
  size_t lines = 0;
  for (size_t at = 0; at < text.size(); ++lines) {
    const size_t end = text.find('\n', at);
    ASSERT_NE(end, std::string::npos);
    ASSERT_TRUE(json::Parse(std::string_view(text).substr(at, end - at)).ok());
    at = end + 1;
  }
  EXPECT_EQ(lines, static_cast<size_t>(kThreads * kLines));
}

std::string ReadAll(int fd) {
  std::string text;
  char buffer[4096];
  for (ssize_t n = 0; (n = read(fd, buffer, sizeof(buffer))) > 0;)
    text.append(buffer, static_cast<size_t>(n));
  return text;
}

TEST(FdLogSink, NeverWaitsForAReaderAndSaysHowMuchWasLost) {
  int fds[2];
  ASSERT_EQ(pipe(fds), 0);
  constexpr int kLines = 2000;
  std::string text;
  uint64_t dropped = 0;
  std::thread reader;
  {
    const auto sink =
        FdLog::Create(fds[1], {.max_waiting_bytes = 100'000, .flush = std::chrono::minutes(1)});
    const Logger log(sink, LogLevel::kInfo);
    for (int i = 0; i < kLines; ++i) log.Info("line", {{"pad", std::string(1000, 'p')}});
    dropped = sink->dropped();
    EXPECT_GT(dropped, 0u);
    reader = std::thread([&] { text = ReadAll(fds[0]); });
  }
  close(fds[1]);
  reader.join();
  close(fds[0]);
  uint64_t lines = 0, reported = 0;
  for (size_t at = 0, end = 0; (end = text.find('\n', at)) != std::string::npos; at = end + 1) {
    const auto line = json::Parse(std::string_view(text).substr(at, end - at));
    ASSERT_TRUE(line.ok());
    const std::string& msg = (*line)["msg"].AsString();
    if (msg == "line") ++lines;
    if (msg.ends_with(" lines were dropped")) reported += std::stoull(msg);
  }
  EXPECT_EQ(lines, kLines - dropped);
  EXPECT_EQ(reported, dropped);
}

TEST(FdLogSink, ItsEndWaitsNoLongerThanItMay) {
  int fds[2];
  ASSERT_EQ(pipe(fds), 0);
  const auto begun = std::chrono::steady_clock::now();
  {
    const auto sink = FdLog::Create(fds[1], {.flush = std::chrono::milliseconds(50)});
    sink->Write(std::string(1 << 20, 'x') + "\n");
  }
  EXPECT_LT(std::chrono::steady_clock::now() - begun, std::chrono::seconds(5));
  std::signal(SIGPIPE, SIG_IGN);
  close(fds[0]);  // frees the thread
  close(fds[1]);
}

TEST(FdLogSink, WhatItHasTakenIsWrittenAtItsEnd) {
  char path[] = "/tmp/llmd_log_XXXXXX";
  const int fd = mkstemp(path);
  ASSERT_GE(fd, 0);
  {
    const auto sink = FdLogSink(fd);
    for (int i = 0; i < 1000; ++i) sink->Write(std::string(100, 'x') + "\n");
  }
  EXPECT_EQ(lseek(fd, 0, SEEK_END), 101'000);
  close(fd);
  unlink(path);
}

TEST(FdLogSink, DropsWhatCannotBeWritten) {
  const auto sink = FdLogSink(-1);
  sink->Write("lost\n");
}

}  // namespace
}  // namespace llmd
