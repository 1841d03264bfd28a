#include "common/process.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <functional>
#include <string>

#include "llmd/status.h"

namespace llmd::services {
namespace {

// Runs `body` in a child of its own, as signals belong to a whole process; gives waitpid's status.
int InChild(const std::function<int()>& body) {
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);
    _exit(body());
  }
  int status = 0;
  waitpid(child, &status, 0);
  return status;
}

TEST(WaitForSignal, GivesTheNumberOfTheSignal) {
  for (const int number : {SIGTERM, SIGINT}) {
    const int status = InChild([number] {
      BlockSignals();
      kill(getpid(), number);
      return WaitForSignal();
    });
    ASSERT_TRUE(WIFEXITED(status));
    EXPECT_EQ(WEXITSTATUS(status), number);
  }
}

TEST(WaitForSignal, RunsTheCallbackForEachHangup) {
  const int status = InChild([] {
    BlockSignals();
    int hups = 0;
    kill(getpid(), SIGHUP);
    WaitForSignal([&hups] {
      // Equal pending signals merge, so the next one is sent from here.
      if (++hups < 3) {
        kill(getpid(), SIGHUP);
      } else {
        kill(getpid(), SIGTERM);
      }
    });
    return hups;
  });
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 3);
}

TEST(WaitForSignal, ASecondSignalEndsTheProcess) {
  const int status = InChild([] {
    BlockSignals();
    kill(getpid(), SIGTERM);
    WaitForSignal();
    kill(getpid(), SIGTERM);
    return 0;
  });
  ASSERT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(WTERMSIG(status), SIGTERM);
}

TEST(BlockSignals, ABrokenPipeIsAnErrorNotADeath) {
  const int status = InChild([] {
    BlockSignals();
    int fds[2];
    if (pipe(fds) != 0) return 9;
    close(fds[0]);
    return write(fds[1], "x", 1) == -1 ? 7 : 8;
  });
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 7);
}

TEST(RaiseDescriptorLimit, GoesToTheHardLimit) {
  const int status = InChild([] {
    const rlimit few{100, 300};
    setrlimit(RLIMIT_NOFILE, &few);
    RaiseDescriptorLimit(Logger());
    rlimit now{};
    getrlimit(RLIMIT_NOFILE, &now);
    return now.rlim_cur == 300 ? 7 : 8;
  });
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 7);
}

TEST(Fail, PrintsTheMessageAndGivesOne) {
  testing::internal::CaptureStderr();
  EXPECT_EQ(Fail(InvalidArgument("port 80 is in use")), 1);
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "error: port 80 is in use\n");
}

TEST(MakeLogger, LogsJsonToStdoutAtItsVerbosity) {
  testing::internal::CaptureStdout();
  {
    const Logger log = MakeLogger(StdoutLog(), 2);
    log.Log(LogLevel::kDefault, "shown");
    log.Log(LogLevel::kDebug, "hidden");
  }
  const std::string text = testing::internal::GetCapturedStdout();
  EXPECT_NE(text.find("\"msg\":\"shown\""), std::string::npos);
  EXPECT_EQ(text.find("hidden"), std::string::npos);
}

}  // namespace
}  // namespace llmd::services
