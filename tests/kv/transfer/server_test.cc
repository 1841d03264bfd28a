// What a lender does with peers that do not keep to the protocol.
#include "transfer/server.h"

#include <poll.h>

#include "kv/transfer/harness.h"
#include "transfer/wire.h"

namespace llmd::kv {
namespace {

using testing::Node;
using testing::UniqueId;

class RawPeer {
 public:
  explicit RawPeer(Node& lender) {
    auto fd = ConnectTcp("127.0.0.1", lender.agent().port(), std::chrono::seconds(5), wait_);
    EXPECT_TRUE(fd.ok());
    fd_ = *std::move(fd);
  }
  void Send(std::string_view bytes) { EXPECT_TRUE(SendAll(fd_.get(), bytes, wait_).ok()); }
  // The next frame's status if it is an error; ok for another frame.
  Status NextError() {
    wire::HeaderBytes bytes;
    LLMD_RETURN_IF_ERROR(ReceiveAll(fd_.get(), bytes, wait_));
    LLMD_ASSIGN_OR_RETURN(const wire::FrameHeader header, wire::DecodeHeader(bytes));
    std::string payload(header.payload_bytes, '\0');
    LLMD_RETURN_IF_ERROR(ReceiveAll(
        fd_.get(), std::span<uint8_t>(reinterpret_cast<uint8_t*>(payload.data()), payload.size()),
        wait_));
    return header.type == wire::Type::kError ? wire::DecodeError(payload) : OkStatus();
  }
  bool Closed() {
    uint8_t byte;
    return ReceiveAll(fd_.get(), std::span<uint8_t>(&byte, 1), wait_).code() ==
           StatusCode::kUnavailable;
  }

 private:
  Wait wait_{nullptr, std::chrono::steady_clock::now() + std::chrono::seconds(30)};
  UniqueFd fd_;
};

std::string HelloFor(const Node& lender) {
  return wire::Frame(
      wire::Type::kHello, 1,
      wire::Encode(wire::Hello{lender.engine_id(), "d", testing::TestCompatibility()}));
}

TEST(TransferServer, AnswersGarbageWithATypedErrorAndCloses) {
  Node lender(UniqueId("p"), 2, 1);
  const struct {
    std::string bytes;
    StatusCode code;
  } cases[] = {
      {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", StatusCode::kDataLoss},
      {std::string(64, '\0'), StatusCode::kDataLoss},
      {std::string("LKVT\x02\x01\0\0\0\0\0\0\0\0\0\0", 16), StatusCode::kUnimplemented},
      {std::string("LKVT\x01\x63\0\0\0\0\0\0\0\0\0\0", 16), StatusCode::kDataLoss},
      {std::string("LKVT\x01\x01\0\0\xff\xff\xff\xff\0\0\0\0", 16), StatusCode::kDataLoss},
      {std::string("LKVT\x01\x05\0\0\xff\xff\xff\xff\0\0\0\0", 16), StatusCode::kDataLoss},
      {wire::Frame(wire::Type::kHello, 1, "xyz"), StatusCode::kDataLoss},
      {wire::Frame(wire::Type::kRead, 1, ""), StatusCode::kFailedPrecondition},
      {wire::Frame(wire::Type::kWelcome, 1, ""), StatusCode::kFailedPrecondition},
  };
  for (const auto& c : cases) {
    RawPeer peer(lender);
    peer.Send(c.bytes);
    EXPECT_EQ(peer.NextError().code(), c.code) << c.bytes.substr(0, 8);
    EXPECT_TRUE(peer.Closed());
  }
}

TEST(TransferServer, TakesAHelloByteByByte) {
  Node lender(UniqueId("p"), 2, 1);
  RawPeer peer(lender);
  for (char byte : HelloFor(lender)) peer.Send(std::string_view(&byte, 1));
  EXPECT_TRUE(peer.NextError().ok());
}

TEST(TransferServer, AnswersQuestionsSentAheadInOrder) {
  Node lender(UniqueId("p"), 2, 1);
  ASSERT_TRUE(lender.agent().Lend("r1", {0}).ok());
  RawPeer peer(lender);
  const std::string done = wire::Frame(wire::Type::kDone, 2, wire::Encode(wire::Done{"r1"}));
  peer.Send(HelloFor(lender) + done + done);
  EXPECT_TRUE(peer.NextError().ok());
  EXPECT_TRUE(peer.NextError().ok());
  EXPECT_EQ(peer.NextError().code(), StatusCode::kNotFound);
}

TEST(TransferServer, MappedLaneIsNotGrantedOverTcp) {
  Node lender(UniqueId("p"), 2, 1);
  ASSERT_TRUE(lender.agent().Lend("r1", {0}).ok());
  RawPeer peer(lender);
  peer.Send(
      HelloFor(lender) +
      wire::Frame(wire::Type::kRead, 2, wire::Encode(wire::Read{"r1", wire::Lane::kMemfd, {0}})));
  EXPECT_TRUE(peer.NextError().ok());
  EXPECT_EQ(peer.NextError().code(), StatusCode::kFailedPrecondition);
}

TEST(TransferServer, AReleaserMayNotRead) {
  Node lender(UniqueId("p"), 2, 1);
  ASSERT_TRUE(lender.agent().Lend("r1", {0}).ok());
  RawPeer peer(lender);
  wire::Hello hello;
  hello.engine_id = lender.engine_id();
  hello.purpose = wire::Purpose::kRelease;
  peer.Send(
      wire::Frame(wire::Type::kHello, 1, wire::Encode(hello)) +
      wire::Frame(wire::Type::kRead, 2, wire::Encode(wire::Read{"r1", wire::Lane::kTcp, {0}})));
  EXPECT_TRUE(peer.NextError().ok());
  EXPECT_EQ(peer.NextError().code(), StatusCode::kFailedPrecondition);
}

TEST(TransferServer, SilentPeersAreDroppedAfterTheReadTimeout) {
  Node lender(UniqueId("p"), 2, 1, SystemClock(),
              [](AgentOptions& o) { o.read_timeout = std::chrono::milliseconds(50); });
  RawPeer peer(lender);
  EXPECT_TRUE(peer.Closed());
}

TEST(TransferReader, SilentLenderIsAnErrorWithinTheDeadline) {
  uint16_t port = 0;
  auto listener = ListenTcp("127.0.0.1", 0, &port);
  ASSERT_TRUE(listener.ok());
  Node reader(UniqueId("d"), 2, 1, SystemClock(), [](AgentOptions& o) {
    o.connect_timeout = std::chrono::milliseconds(100);
    o.read_timeout = std::chrono::milliseconds(100);
  });
  // More pulls than threads: those that never get one must end too.
  std::vector<std::future<PullResult>> results;
  for (int i = 0; i < 10; ++i)
    results.push_back(reader.PullAsync({"silent", "127.0.0.1", port, "r", {0}, {0}}));
  for (auto& result : results) EXPECT_EQ(result.get().status.code(), StatusCode::kDeadlineExceeded);
}

}  // namespace
}  // namespace llmd::kv
