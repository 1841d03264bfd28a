// Two processes, one of which is killed -9 in the middle of a copy.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>

#include "kv/transfer/harness.h"
#include "support/paths.h"

namespace llmd::kv {
namespace {

using testing::UniqueId;

class Process {
 public:
  explicit Process(std::vector<std::string> args) {
    int out[2];
    EXPECT_EQ(pipe(out), 0);
    const std::string program = ::llmd::testing::BinaryPath("tests/kv_peer");
    std::vector<char*> argv = {const_cast<char*>(program.c_str())};
    for (std::string& arg : args) argv.push_back(arg.data());
    argv.push_back(nullptr);
    pid_ = fork();
    if (pid_ == 0) {
      dup2(out[1], STDOUT_FILENO);
      close(out[0]);
      close(out[1]);
      execv(program.c_str(), argv.data());
      _exit(127);
    }
    close(out[1]);
    out_ = fdopen(out[0], "r");
  }
  ~Process() {
    Kill();
    fclose(out_);
  }
  std::string Line() {
    char line[256] = "";
    if (fgets(line, sizeof(line), out_) == nullptr) return "";
    return std::string(line, strcspn(line, "\n"));
  }
  void Kill() {
    if (pid_ <= 0) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }

 private:
  pid_t pid_ = -1;
  FILE* out_ = nullptr;
};

// An agent with the options of kv_peer.
struct Local {
  explicit Local(std::string id, const Clock& clock, std::function<void(AgentOptions&)> tune = {}) {
    region = *Region::Create({16, 8192, true});
    AgentOptions options;
    options.engine_id = std::move(id);
    options.read_timeout = std::chrono::seconds(20);
    if (tune) tune(options);
    auto started = Agent::Start(
        *region, options,
        [this](const std::string& r, bool read) { released.emplace_back(r, read); }, Logger(),
        metrics, clock);
    EXPECT_TRUE(started.ok()) << started.status().ToString();
    agent = *std::move(started);
  }
  PullResult Pull(const std::string& engine_id, int port) {
    std::promise<PullResult> promise;
    agent->Pull(
        {engine_id, "127.0.0.1", static_cast<uint16_t>(port), "r1", {0, 1, 2, 3}, {4, 5, 6, 7}},
        [&](PullResult result) { promise.set_value(std::move(result)); });
    return promise.get_future().get();
  }
  std::unique_ptr<Region> region;
  MetricsRegistry metrics;
  std::vector<std::pair<std::string, bool>> released;
  std::unique_ptr<Agent> agent;
};

bool BlockIs(Region& region, int block, int value) {
  const std::byte* at = region.blocks() + static_cast<size_t>(block) * region.block_stride();
  return std::all_of(at, at + region.block_bytes(),
                     [&](std::byte b) { return b == std::byte(value); });
}

TEST(TwoProcesses, BlocksCrossOnBothLanes) {
  for (const char* lane : {"memfd", "tcp"}) {
    const std::string id = UniqueId("p");
    Process lender({"lend", id});
    const int port = std::stoi(lender.Line());
    Local reader(UniqueId("d"), SystemClock(), [&](AgentOptions& o) { o.transport = lane; });
    const PullResult result = reader.Pull(id, port);
    ASSERT_TRUE(result.status.ok()) << result.status.ToString();
    EXPECT_EQ(result.lane, lane);
    for (int b = 0; b < 4; ++b)
      EXPECT_TRUE(BlockIs(*reader.region, 4 + b, b + 1)) << lane << " block " << b;
  }
}

TEST(TwoProcesses, LenderKilledDuringATcpReadIsATypedError) {
  const std::string id = UniqueId("p");
  Process lender({"lend", id, "hold"});
  const int port = std::stoi(lender.Line());
  Local reader(UniqueId("d"), SystemClock(), [](AgentOptions& o) { o.transport = "tcp"; });
  std::thread killer([&] {
    EXPECT_EQ(lender.Line(), "holding");
    lender.Kill();
  });
  const PullResult result = reader.Pull(id, port);
  killer.join();
  EXPECT_EQ(result.status.code(), StatusCode::kUnavailable) << result.status.ToString();
  EXPECT_EQ(result.failed.size(), 4u) << "no verdict came, so no block counts";
}

TEST(TwoProcesses, LenderKilledDuringAMappedReadLeavesItsBytesReadable) {
  const std::string id = UniqueId("p");
  Process lender({"lend", id});
  const int port = std::stoi(lender.Line());
  Local reader(UniqueId("d"), SystemClock(), [&](AgentOptions& o) {
    o.transport = "memfd";
    o.before_recheck = [&](size_t position) {
      if (position == 1) lender.Kill();
    };
  });
  const PullResult result = reader.Pull(id, port);
  ASSERT_TRUE(result.status.ok()) << result.status.ToString();
  for (int b = 0; b < 4; ++b) EXPECT_TRUE(BlockIs(*reader.region, 4 + b, b + 1));
  EXPECT_EQ(reader.Pull(id, port).status.code(), StatusCode::kUnavailable);
}

TEST(TwoProcesses, ReaderKilledDuringAMappedReadLeavesALeaseThatExpires) {
  FakeClock clock;
  const std::string id = UniqueId("p");
  Local lender(id, clock);
  ASSERT_TRUE(lender.agent->Lend("r1", {0, 1, 2, 3}).ok());
  Process reader({"pull", id, std::to_string(lender.agent->port()), "memfd"});
  ASSERT_EQ(reader.Line(), "holding");
  reader.Kill();
  EXPECT_EQ(lender.agent->leases(), 1u);
  clock.Advance(AgentOptions().lease);
  lender.agent->ExpireLeases();
  EXPECT_EQ(lender.agent->leases(), 0u);
  lender.agent->Stop();
  EXPECT_EQ(lender.released, (std::vector<std::pair<std::string, bool>>{{"r1", false}}));
}

TEST(TwoProcesses, ReaderKilledDuringATcpReadLeavesALeaseThatExpires) {
  FakeClock clock;
  const std::string id = UniqueId("p");
  std::promise<void> sent, go_on;
  Local lender(id, clock, [&](AgentOptions& o) {
    o.before_recheck = [&](size_t position) {
      if (position != 0) return;
      sent.set_value();
      go_on.get_future().wait();
    };
  });
  ASSERT_TRUE(lender.agent->Lend("r1", {0, 1, 2, 3}).ok());
  Process reader({"pull", id, std::to_string(lender.agent->port()), "tcp"});
  sent.get_future().wait();
  reader.Kill();
  go_on.set_value();
  EXPECT_EQ(lender.agent->leases(), 1u);
  clock.Advance(AgentOptions().lease);
  lender.agent->ExpireLeases();
  EXPECT_EQ(lender.agent->leases(), 0u);
  lender.agent->Stop();
  EXPECT_EQ(lender.released, (std::vector<std::pair<std::string, bool>>{{"r1", false}}));
}

}  // namespace
}  // namespace llmd::kv
