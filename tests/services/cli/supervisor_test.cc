#include "cli/supervisor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

namespace llmd::cli {
namespace {

using testing::Contains;
using testing::ElementsAre;

class SupervisorTest : public testing::Test {
 protected:
  static ProcessPlan Shell(std::string name, std::string script) {
    return {name, "test", {"/bin/sh", "-c", script}, 0, "", {}};
  }

  // Polls until `done` or ten seconds have passed.
  bool PollUntil(const std::function<bool()>& done) {
    const TimePoint deadline = SystemClock().Now() + std::chrono::seconds(10);
    while (!done() && SystemClock().Now() < deadline)
      supervisor.Poll(std::chrono::milliseconds(10));
    return done();
  }

  std::vector<std::string> lines;
  Supervisor supervisor{[this](const ProcessPlan& p, std::string_view line) {
    lines.push_back(p.name + ": " + std::string(line));
  }};
};

TEST_F(SupervisorTest, DeliversWholeLinesOfBothStreams) {
  ASSERT_TRUE(supervisor.Start(Shell("a", "printf 'one\\ntwo\\n'; printf 'three' >&2")).ok());
  ASSERT_TRUE(PollUntil([&] { return supervisor.running() == 0; }));
  EXPECT_THAT(lines, ElementsAre("a: one", "a: two", "a: three"));
}

TEST_F(SupervisorTest, TellsHowAChildEnded) {
  ASSERT_TRUE(supervisor.Start(Shell("code", "exit 3")).ok());
  ASSERT_TRUE(supervisor.Start(Shell("signal", "kill -9 $$")).ok());
  ASSERT_TRUE(PollUntil([&] { return supervisor.running() == 0; }));
  std::vector<std::string> how;
  for (const auto& exit : supervisor.TakeExits()) how.push_back(exit.name + " " + exit.how);
  EXPECT_THAT(how, Contains("code exit code 3"));
  EXPECT_THAT(how, Contains("signal signal 9 (Killed)"));
  EXPECT_TRUE(supervisor.TakeExits().empty());
}

TEST_F(SupervisorTest, StopsPolitelyFirst) {
  ASSERT_TRUE(
      supervisor
          .Start(Shell("a", "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.01; done"))
          .ok());
  ASSERT_TRUE(PollUntil([&] { return !lines.empty(); }));
  supervisor.Stop(std::chrono::seconds(10));
  EXPECT_THAT(lines, ElementsAre("a: up", "a: bye"));
  EXPECT_EQ(supervisor.TakeExits()[0].how, "exit code 0");
}

TEST_F(SupervisorTest, KillsWhatIgnoresSigterm) {
  ASSERT_TRUE(
      supervisor.Start(Shell("a", "trap '' TERM; echo up; while :; do sleep 0.01; done")).ok());
  ASSERT_TRUE(PollUntil([&] { return !lines.empty(); }));
  supervisor.Stop(std::chrono::milliseconds(50));
  EXPECT_EQ(supervisor.running(), 0u);
  EXPECT_EQ(supervisor.TakeExits()[0].how, "signal 9 (Killed)");
}

TEST_F(SupervisorTest, SetsTheEnvironment) {
  ProcessPlan plan = Shell("a", "echo $LLMD_WORD $HOME");
  plan.environment = {"LLMD_WORD=given", "HOME=/changed"};
  ASSERT_TRUE(supervisor.Start(plan).ok());
  ASSERT_TRUE(PollUntil([&] { return supervisor.running() == 0; }));
  EXPECT_THAT(lines, ElementsAre("a: given /changed"));
}

TEST_F(SupervisorTest, NamesAMissingProgram) {
  const Status s = supervisor.Start({"x", "test", {"/no/such/program"}, 0, "", {}});
  EXPECT_EQ(s.code(), StatusCode::kNotFound);
  EXPECT_THAT(s.message(), testing::HasSubstr("/no/such/program"));
}

TEST_F(SupervisorTest, ChildrenDoNotInheritBlockedSignals) {
  sigset_t term, before;
  sigemptyset(&term);
  sigaddset(&term, SIGTERM);
  sigprocmask(SIG_BLOCK, &term, &before);
  ASSERT_TRUE(supervisor.Start(Shell("a", "kill -TERM $$; echo survived")).ok());
  sigprocmask(SIG_SETMASK, &before, nullptr);
  ASSERT_TRUE(PollUntil([&] { return supervisor.running() == 0; }));
  EXPECT_TRUE(lines.empty());
}

}  // namespace
}  // namespace llmd::cli
