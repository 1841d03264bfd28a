// The contract of a KV transport, run over both lanes.
#include "llmd/kv/transfer.h"

#include <atomic>
#include <random>
#include <thread>

#include "kv/transfer/harness.h"

namespace llmd::kv {
namespace {

using testing::Node;
using testing::Released;
using testing::UniqueId;

constexpr uint32_t kLenderSeed = 11, kReaderSeed = 77;

class AgentContract : public ::testing::TestWithParam<std::string> {
 protected:
  static std::function<void(AgentOptions&)> Lane(std::function<void(AgentOptions&)> more = {}) {
    return [more](AgentOptions& options) {
      options.transport = GetParam();
      if (more) more(options);
    };
  }
  std::string LaneLabel() const { return "{lane=\"" + GetParam() + "\"}"; }
};

TEST_P(AgentContract, MovesExactlyTheListedBlocks) {
  Node lender(UniqueId("p"), 16, kLenderSeed),
      reader(UniqueId("d"), 16, kReaderSeed, SystemClock(), Lane());
  ASSERT_TRUE(lender.agent().Lend("r1", {3, 9, 4, 15}).ok());
  const PullResult result = reader.Pull(reader.RequestFor(lender, "r1", {9, 3, 15}, {0, 7, 2}));
  ASSERT_TRUE(result.status.ok()) << result.status.ToString();
  EXPECT_EQ(result.lane, GetParam());
  EXPECT_EQ(result.blocks_read, 3u);
  EXPECT_EQ(result.bytes, 3 * testing::kBlockBytes);
  EXPECT_TRUE(result.failed.empty());
  EXPECT_TRUE(reader.Holds(0, kLenderSeed, 9));
  EXPECT_TRUE(reader.Holds(7, kLenderSeed, 3));
  EXPECT_TRUE(reader.Holds(2, kLenderSeed, 15));
  for (int untouched : {1, 3, 4, 5, 6, 8, 15})
    EXPECT_TRUE(reader.Holds(untouched, kReaderSeed, untouched));
  EXPECT_EQ(lender.released(), (std::vector<Released>{{"r1", true}}));
  EXPECT_EQ(lender.agent().leases(), 0u);
  EXPECT_EQ(reader.Metric("llmd_kv_transfer_blocks_total" + LaneLabel()), 3);
  EXPECT_EQ(reader.Metric("llmd_kv_transfer_bytes_total" + LaneLabel()),
            3.0 * testing::kBlockBytes);
  EXPECT_EQ(reader.Metric("llmd_kv_transfer_seconds_count" + LaneLabel()), 1);
}

TEST_P(AgentContract, MovesMoreThanOneBatch) {
  constexpr int kBlocks = 300;
  Node lender(UniqueId("p"), kBlocks, kLenderSeed),
      reader(UniqueId("d"), kBlocks, kReaderSeed, SystemClock(), Lane());
  std::vector<int32_t> remote(kBlocks), local(kBlocks);
  for (int i = 0; i < kBlocks; ++i) remote[i] = local[kBlocks - 1 - i] = i;
  ASSERT_TRUE(lender.agent().Lend("r1", remote).ok());
  const PullResult result = reader.Pull(reader.RequestFor(lender, "r1", remote, local));
  ASSERT_TRUE(result.status.ok()) << result.status.ToString();
  EXPECT_EQ(result.blocks_read, static_cast<uint64_t>(kBlocks));
  for (int i = 0; i < kBlocks; ++i) EXPECT_TRUE(reader.Holds(local[i], kLenderSeed, i)) << i;
}

TEST_P(AgentContract, EmptyListOnlyNotifies) {
  Node lender(UniqueId("p"), 2, kLenderSeed),
      reader(UniqueId("d"), 2, kReaderSeed, SystemClock(), Lane());
  ASSERT_TRUE(lender.agent().Lend("r1", {0, 1}).ok());
  const PullResult result = reader.Pull(reader.RequestFor(lender, "r1", {}, {}));
  ASSERT_TRUE(result.status.ok()) << result.status.ToString();
  EXPECT_EQ(result.blocks_read, 0u);
  EXPECT_EQ(lender.released(), (std::vector<Released>{{"r1", true}}));
}

TEST_P(AgentContract, BlockGivenAwayBeforeTheReadIsStale) {
  Node lender(UniqueId("p"), 8, kLenderSeed),
      reader(UniqueId("d"), 8, kReaderSeed, SystemClock(), Lane());
  ASSERT_TRUE(lender.agent().Lend("r1", {0, 1, 2, 3}).ok());
  lender.region().Bump(2);
  lender.Fill(2, 999);
  const PullResult result =
      reader.Pull(reader.RequestFor(lender, "r1", {0, 1, 2, 3}, {4, 5, 6, 7}));
  EXPECT_EQ(result.status.code(), StatusCode::kAborted);
  EXPECT_NE(result.status.message().find("stale block 2"), std::string::npos)
      << result.status.ToString();
  EXPECT_EQ(result.failed, (std::vector<int32_t>{2}));
  EXPECT_EQ(result.blocks_read, 3u);
  EXPECT_TRUE(reader.Holds(5, kLenderSeed, 1));
  EXPECT_FALSE(reader.Holds(6, 999, 2)) << "another request's bytes crossed";
  EXPECT_EQ(reader.Metric("llmd_kv_transfer_failures_total{reason=\"ABORTED\"}"), 1);
  EXPECT_EQ(lender.agent().leases(), 0u) << "a lease of no more use must go";
}

TEST_P(AgentContract, BlockGivenAwayDuringTheCopyIsStale) {
  std::atomic<Node*> lender_ptr{nullptr};
  const auto bump = [&](AgentOptions& options) {
    options.before_recheck = [&](size_t position) {
      if (position == 1) lender_ptr.load()->region().Bump(5);
    };
  };
  Node lender(UniqueId("p"), 8, kLenderSeed, SystemClock(), bump);
  lender_ptr = &lender;
  Node reader(UniqueId("d"), 8, kReaderSeed, SystemClock(), Lane(bump));
  ASSERT_TRUE(lender.agent().Lend("r1", {4, 5, 6}).ok());
  const PullResult result = reader.Pull(reader.RequestFor(lender, "r1", {4, 5, 6}, {0, 1, 2}));
  EXPECT_EQ(result.status.code(), StatusCode::kAborted);
  EXPECT_NE(result.status.message().find("stale block 5"), std::string::npos)
      << result.status.ToString();
  EXPECT_EQ(result.failed, (std::vector<int32_t>{1}));
}

TEST_P(AgentContract, WrongEngineIdIsRefused) {
  Node lender(UniqueId("p"), 2, kLenderSeed),
      reader(UniqueId("d"), 2, kReaderSeed, SystemClock(), Lane());
  PullRequest request = reader.RequestFor(lender, "r1", {0}, {0});
  request.remote_engine_id = "somebody-else";
  const PullResult result = reader.Pull(request);
  if (GetParam() == "memfd") {
    EXPECT_EQ(result.status.code(), StatusCode::kUnavailable) << "nobody listens under that name";
  } else {
    EXPECT_EQ(result.status.code(), StatusCode::kFailedPrecondition);
    EXPECT_NE(
        result.status.message().find("asks for 'somebody-else', this is '" + lender.engine_id()),
        std::string::npos);
  }
  EXPECT_EQ(result.failed, (std::vector<int32_t>{0}));
}

TEST_P(AgentContract, EachDifferingCompatibilityFieldIsNamed) {
  const struct {
    const char* field;
    std::function<void(Compatibility&)> change;
  } cases[] = {
      {"model", [](Compatibility& c) { c.model = "b"; }},
      {"kv_dtype", [](Compatibility& c) { c.kv_dtype = "f32"; }},
      {"layout", [](Compatibility& c) { c.layout = "other"; }},
      {"layers", [](Compatibility& c) { c.layers = 9; }},
      {"kv_heads", [](Compatibility& c) { c.kv_heads = 9; }},
      {"head_dim", [](Compatibility& c) { c.head_dim = 9; }},
      {"block_size", [](Compatibility& c) { c.block_size = 32; }},
      {"hash_algorithm", [](Compatibility& c) { c.hash_algorithm = "xxhash_cbor"; }},
  };
  Node lender(UniqueId("p"), 2, kLenderSeed);
  ASSERT_TRUE(lender.agent().Lend("r1", {0}).ok());
  for (const auto& c : cases) {
    Node reader(UniqueId("d"), 2, kReaderSeed, SystemClock(),
                Lane([&](AgentOptions& o) { c.change(o.compatibility); }));
    const PullResult result = reader.Pull(reader.RequestFor(lender, "r1", {0}, {0}));
    EXPECT_EQ(result.status.code(), StatusCode::kFailedPrecondition);
    EXPECT_NE(result.status.message().find("incompatible " + std::string(c.field) + ": lender has"),
              std::string::npos)
        << result.status.ToString();
  }
}

TEST_P(AgentContract, OtherBlockSizesInBytesAreRefused) {
  Node lender(UniqueId("p"), 2, kLenderSeed);
  Node reader(UniqueId("d"), 2, kReaderSeed, SystemClock(), Lane(), 4096);
  ASSERT_TRUE(lender.agent().Lend("r1", {0}).ok());
  const PullResult result = reader.Pull(reader.RequestFor(lender, "r1", {0}, {0}));
  EXPECT_EQ(result.status.code(), StatusCode::kFailedPrecondition);
  EXPECT_NE(result.status.message().find("incompatible block_bytes"), std::string::npos);
}

TEST_P(AgentContract, BlocksOutsideTheLeaseAreRefused) {
  Node lender(UniqueId("p"), 8, kLenderSeed),
      reader(UniqueId("d"), 8, kReaderSeed, SystemClock(), Lane());
  ASSERT_TRUE(lender.agent().Lend("r1", {0, 1}).ok());
  const PullResult result = reader.Pull(reader.RequestFor(lender, "r1", {0, 7}, {0, 1}));
  EXPECT_EQ(result.status.code(), StatusCode::kOutOfRange);
  EXPECT_EQ(result.blocks_read, 0u);
  EXPECT_EQ(lender.agent().leases(), 1u);
  EXPECT_TRUE(reader.Pull(reader.RequestFor(lender, "r1", {0, 1}, {0, 1})).status.ok())
      << "the session goes on";
}

TEST_P(AgentContract, LeaseExpiresByTheClockAndLateReadsAreTyped) {
  FakeClock clock;
  const auto lease = [](AgentOptions& options) { options.lease = std::chrono::seconds(30); };
  Node lender(UniqueId("p"), 4, kLenderSeed, clock, lease);
  Node reader(UniqueId("d"), 4, kReaderSeed, SystemClock(), Lane());
  ASSERT_TRUE(lender.agent().Lend("r1", {0}).ok());
  clock.Advance(std::chrono::seconds(29));
  lender.agent().ExpireLeases();
  EXPECT_EQ(lender.agent().leases(), 1u);
  clock.Advance(std::chrono::seconds(1));
  lender.agent().ExpireLeases();
  EXPECT_EQ(lender.agent().leases(), 0u);
  EXPECT_EQ(lender.released(), (std::vector<Released>{{"r1", false}}));
  EXPECT_EQ(lender.Metric("llmd_kv_lease_expirations_total"), 1);
  const PullResult result = reader.Pull(reader.RequestFor(lender, "r1", {0}, {0}));
  EXPECT_EQ(result.status.code(), StatusCode::kNotFound);
  EXPECT_NE(result.status.message().find("'r1' expired"), std::string::npos)
      << result.status.ToString();
}

TEST_P(AgentContract, RevokedLeaseIsSilentAtTheLenderAndTypedAtTheReader) {
  Node lender(UniqueId("p"), 4, kLenderSeed),
      reader(UniqueId("d"), 4, kReaderSeed, SystemClock(), Lane());
  ASSERT_TRUE(lender.agent().Lend("r1", {0}).ok());
  lender.agent().Revoke("r1");
  EXPECT_EQ(lender.agent().leases(), 0u);
  const PullResult result = reader.Pull(reader.RequestFor(lender, "r1", {0}, {0}));
  EXPECT_NE(result.status.message().find("'r1' was revoked"), std::string::npos)
      << result.status.ToString();
  EXPECT_TRUE(lender.released().empty());
}

TEST_P(AgentContract, SecondReaderOfALeaseIsToldThatItWasRead) {
  Node lender(UniqueId("p"), 4, kLenderSeed),
      reader(UniqueId("d"), 4, kReaderSeed, SystemClock(), Lane());
  ASSERT_TRUE(lender.agent().Lend("r1", {0}).ok());
  ASSERT_TRUE(reader.Pull(reader.RequestFor(lender, "r1", {0}, {0})).status.ok());
  const PullResult again = reader.Pull(reader.RequestFor(lender, "r1", {0}, {0}));
  EXPECT_EQ(again.status.code(), StatusCode::kNotFound);
  EXPECT_NE(again.status.message().find("'r1' was read before"), std::string::npos)
      << again.status.ToString();
  EXPECT_EQ(lender.released().size(), 1u);
}

TEST_P(AgentContract, RestartedLenderUnderTheSameIdIsReadInItsNewLife) {
  const std::string id = UniqueId("p");
  Node reader(UniqueId("d"), 4, kReaderSeed, SystemClock(), Lane());
  uint16_t port = 0;
  {
    Node first(id, 4, kLenderSeed);
    port = first.agent().port();
    ASSERT_TRUE(first.agent().Lend("r1", {0}).ok());
    ASSERT_TRUE(reader.Pull(reader.RequestFor(first, "r1", {0}, {0})).status.ok());
  }
  Node second(id, 4, 4242, SystemClock(), [&](AgentOptions& options) { options.port = port; });
  ASSERT_TRUE(second.agent().Lend("r2", {1}).ok());
  const PullResult result = reader.Pull(reader.RequestFor(second, "r2", {1}, {1}));
  ASSERT_TRUE(result.status.ok()) << result.status.ToString();
  EXPECT_TRUE(reader.Holds(1, 4242, 1)) << "old mapping was used";
  EXPECT_EQ(reader.Pull(reader.RequestFor(second, "r1", {0}, {0})).status.code(),
            StatusCode::kNotFound);
}

TEST_P(AgentContract, ManyPullsAtOnceEachGetTheirOwnBlocks) {
  constexpr int kRequests = 200, kBlocks = 64;
  Node p1(UniqueId("p"), kBlocks, 1, SystemClock(), {}, 4096),
      p2(UniqueId("p"), kBlocks, 2, SystemClock(), {}, 4096);
  Node reader(UniqueId("d"), 2 * kRequests, kReaderSeed, SystemClock(), Lane(), 4096);
  std::mt19937 random(7);
  std::vector<std::future<PullResult>> results;
  std::vector<std::vector<int32_t>> lists;
  for (int i = 0; i < kRequests; ++i) {
    Node& lender = i % 2 == 0 ? p1 : p2;
    const int32_t a = static_cast<int32_t>(random() % kBlocks), b = (a + 1) % kBlocks;
    lists.push_back({a, b});
    const std::string id = "r" + std::to_string(i);
    ASSERT_TRUE(lender.agent().Lend(id, lists.back()).ok());
    results.push_back(
        reader.PullAsync(reader.RequestFor(lender, id, lists.back(), {2 * i, 2 * i + 1})));
  }
  for (int i = 0; i < kRequests; ++i) {
    const PullResult result = results[i].get();
    ASSERT_TRUE(result.status.ok()) << result.status.ToString();
    const uint32_t seed = i % 2 == 0 ? 1 : 2;
    EXPECT_TRUE(reader.Holds(2 * i, seed, lists[i][0]));
    EXPECT_TRUE(reader.Holds(2 * i + 1, seed, lists[i][1]));
  }
  EXPECT_EQ(p1.agent().leases() + p2.agent().leases(), 0u);
}

TEST_P(AgentContract, StopEndsPullsUnderWayOnceEach) {
  // The lender's hook (TCP) or the reader's (memfd) holds the copy until Stop has been called.
  std::promise<void> reached, release;
  auto release_future = release.get_future().share();
  std::atomic<bool> first{true};
  const auto hold = [&](AgentOptions& options) {
    options.before_recheck = [&, release_future](size_t) {
      if (first.exchange(false)) {
        reached.set_value();
        release_future.wait();
      }
    };
  };
  Node lender(UniqueId("p"), 64, kLenderSeed, SystemClock(), hold);
  Node reader(UniqueId("d"), 64, kReaderSeed, SystemClock(), Lane(hold));
  std::vector<int32_t> all(64);
  for (int i = 0; i < 64; ++i) all[i] = i;
  ASSERT_TRUE(lender.agent().Lend("r1", all).ok());
  std::vector<std::future<PullResult>> results;
  results.push_back(reader.PullAsync(reader.RequestFor(lender, "r1", all, all)));
  reached.get_future().wait();
  for (int i = 0; i < 8; ++i)
    results.push_back(reader.PullAsync(reader.RequestFor(lender, "none", {0}, {0})));
  std::thread stop([&] { reader.agent().Stop(); });
  release.set_value();
  stop.join();
  for (auto& result : results) {
    const Status status = result.get().status;
    EXPECT_TRUE(status.code() == StatusCode::kCancelled || status.code() == StatusCode::kNotFound ||
                status.ok())
        << status.ToString();
  }
  EXPECT_EQ(reader.Pull(reader.RequestFor(lender, "r1", {0}, {0})).status.code(),
            StatusCode::kCancelled);
}

TEST_P(AgentContract, BadListsAreErrorsBeforeAnythingMoves) {
  Node lender(UniqueId("p"), 4, kLenderSeed),
      reader(UniqueId("d"), 4, kReaderSeed, SystemClock(), Lane());
  ASSERT_TRUE(lender.agent().Lend("r1", {0, 1}).ok());
  EXPECT_EQ(reader.Pull(reader.RequestFor(lender, "r1", {0, 1}, {0})).status.code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(reader.Pull(reader.RequestFor(lender, "r1", {0}, {4})).status.code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(reader.Pull(reader.RequestFor(lender, "r1", {0}, {-1})).status.code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(reader.Pull(reader.RequestFor(lender, "r1", {-1}, {0})).status.code(),
            StatusCode::kOutOfRange);
  EXPECT_EQ(lender.agent().leases(), 1u);
}

INSTANTIATE_TEST_SUITE_P(Lanes, AgentContract, ::testing::Values("memfd", "tcp"),
                         [](const auto& param) { return param.param; });

TEST(Agent, ReleaseEndsALeaseUnread) {
  Node lender(UniqueId("p"), 2, kLenderSeed);
  ASSERT_TRUE(lender.agent().Lend("r1", {0}).ok());
  const auto release = [&](const std::string& engine_id, const std::string& request_id) {
    return ReleaseLease(engine_id, "127.0.0.1", lender.agent().port(), request_id,
                        std::chrono::seconds(5));
  };
  EXPECT_EQ(release("somebody-else", "r1").code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(lender.agent().leases(), 1u);
  EXPECT_TRUE(release(lender.engine_id(), "r1").ok());
  EXPECT_EQ(lender.agent().leases(), 0u);
  EXPECT_EQ(lender.released(), (std::vector<Released>{{"r1", false}}));
  EXPECT_NE(release(lender.engine_id(), "r1").message().find("'r1' was released unread"),
            std::string::npos);
}

TEST(Agent, AutoTakesTheMappedLaneOnOneHost) {
  Node lender(UniqueId("p"), 2, kLenderSeed), reader(UniqueId("d"), 2, kReaderSeed);
  ASSERT_TRUE(lender.agent().Lend("r1", {0}).ok());
  EXPECT_EQ(reader.Pull(reader.RequestFor(lender, "r1", {0}, {0})).lane, "memfd");
}

TEST(Agent, RequireRefusesTheOtherLane) {
  Node lender(UniqueId("p"), 2, kLenderSeed);
  Node reader(UniqueId("d"), 2, kReaderSeed, SystemClock(),
              [](AgentOptions& options) { options.require = "tcp"; });
  ASSERT_TRUE(lender.agent().Lend("r1", {0}).ok());
  const PullResult result = reader.Pull(reader.RequestFor(lender, "r1", {0}, {0}));
  EXPECT_EQ(result.status.code(), StatusCode::kFailedPrecondition);
  EXPECT_NE(result.status.message().find("requires lane 'tcp', only 'memfd'"), std::string::npos);
}

TEST(Agent, LendIsBoundedAndChecked) {
  Node lender(UniqueId("p"), 4, kLenderSeed, SystemClock(),
              [](AgentOptions& options) { options.max_leases = 1; });
  EXPECT_EQ(lender.agent().Lend("r0", {4}).code(), StatusCode::kOutOfRange);
  ASSERT_TRUE(lender.agent().Lend("r1", {0}).ok());
  EXPECT_EQ(lender.agent().Lend("r2", {0}).code(), StatusCode::kResourceExhausted);
  lender.agent().Revoke("r1");
  EXPECT_TRUE(lender.agent().Lend("r2", {0}).ok());
  EXPECT_EQ(lender.Metric("llmd_kv_leases"), 1);
}

TEST(Agent, PortInUseIsNamed) {
  Node first(UniqueId("p"), 1, kLenderSeed);
  auto region = Region::Create({1, 64, true});
  MetricsRegistry metrics;
  AgentOptions options;
  options.engine_id = UniqueId("q");
  options.port = first.agent().port();
  const Status status =
      Agent::Start(**region, options, {}, Logger(), metrics, SystemClock()).status();
  EXPECT_EQ(status.code(), StatusCode::kAlreadyExists);
  EXPECT_NE(status.message().find("127.0.0.1:" + std::to_string(options.port)), std::string::npos);
}

TEST(Agent, TwoEnginesMayNotShareAnId) {
  Node first(UniqueId("p"), 1, kLenderSeed);
  auto region = Region::Create({1, 64, true});
  MetricsRegistry metrics;
  AgentOptions options;
  options.engine_id = first.engine_id();
  const Status status =
      Agent::Start(**region, options, {}, Logger(), metrics, SystemClock()).status();
  EXPECT_EQ(status.code(), StatusCode::kAlreadyExists);
  EXPECT_NE(status.message().find("another engine has this id"), std::string::npos);
}

TEST(Agent, BadOptionsAreNamed) {
  auto region = Region::Create({1, 64, true});
  MetricsRegistry metrics;
  const auto start = [&](std::function<void(AgentOptions&)> change) {
    AgentOptions options;
    options.engine_id = "x";
    change(options);
    return Agent::Start(**region, options, {}, Logger(), metrics, SystemClock()).status().message();
  };
  EXPECT_NE(start([](AgentOptions& o) { o.engine_id = ""; }).find("engine id ''"),
            std::string::npos);
  EXPECT_NE(start([](AgentOptions& o) { o.engine_id = std::string(97, 'a'); }).find("1 to 96"),
            std::string::npos);
  EXPECT_NE(start([](AgentOptions& o) { o.transport = "rdma"; }).find("transport 'rdma'"),
            std::string::npos);
  EXPECT_NE(start([](AgentOptions& o) { o.require = "shm"; }).find("require 'shm'"),
            std::string::npos);
  EXPECT_NE(start([](AgentOptions& o) {
              o.transport = "tcp";
              o.require = "memfd";
            }).find("can never be"),
            std::string::npos);
  EXPECT_NE(start([](AgentOptions& o) { o.lease = Duration::zero(); }).find("above zero"),
            std::string::npos);
}

TEST(Agent, RefusedConnectionIsUnavailableAndNamesTheAddress) {
  Node reader(UniqueId("d"), 1, kReaderSeed);
  // Port 1 of loopback: nothing listens there.
  const PullResult result = reader.Pull({"nobody", "127.0.0.1", 1, "r1", {0}, {0}});
  EXPECT_EQ(result.status.code(), StatusCode::kUnavailable);
  EXPECT_NE(result.status.message().find("connect 127.0.0.1:1"), std::string::npos)
      << result.status.ToString();
}

}  // namespace
}  // namespace llmd::kv
