// What one connection may take of a loop's turn, and what becomes of those for which there is no
// descriptor.
#include <fcntl.h>
#include <sys/resource.h>

#include <map>

#include "fixture.h"

namespace llmd::relay::testing {
namespace {

uint64_t Turns(const TestRelay& relay) {
  return relay.relay->Stats()[0].turns;
}

TEST(Turn, OfAClientThatPipelinesIsShort) {
  constexpr int kRequests = 400;
  TestRelay relay(EchoHooks());
  RawSocket socket = relay.Connect();
  const uint64_t before = Turns(relay);
  std::string all;
  for (int i = 0; i < kRequests; ++i) all += kGet;
  socket.Send(all);
  const std::string seen = socket.ReadUntil("GET /x ", kRequests);
  EXPECT_EQ(RawSocket::Count(seen, "GET /x "), kRequests);
  EXPECT_GE(Turns(relay) - before, kRequests / 10U);
}

TEST(Turn, OfAFastUpstreamIsShort) {
  constexpr size_t kBytes = 100 << 20;
  ScriptedPeer peer(1, [](RawSocket& socket, int) {
    ReadRequest(socket);
    socket.Send("HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(kBytes) + "\r\n\r\n");
    const std::string piece(1 << 20, 'x');
    for (size_t sent = 0; sent < kBytes && socket.Send(piece); sent += piece.size()) {
    }
    ReadRequest(socket);
  });
  std::map<TimePoint, size_t> taken;  // by turn
  Hooks hooks = To(peer.port());
  hooks.mode = BodyMode::kEdit;
  hooks.on_bytes = [&taken](Call& call, std::string_view piece, bool) {
    taken[call.now()] += piece.size();
    return Piece{{}};  // so that nothing but the turn holds it up
  };
  TestRelay relay(hooks);
  relay.Ask(kGetClose);
  size_t all = 0, most = 0;
  for (const auto& [turn, bytes] : taken) {
    all += bytes;
    most = std::max(most, bytes);
  }
  EXPECT_EQ(all, kBytes);
  EXPECT_LE(most, 2U * (256 + 64) * 1024);
}

TEST(Turn, OfAnUploadIsShort) {
  TestRelay relay(EchoHooks());
  RawSocket socket = relay.Connect();
  const uint64_t before = Turns(relay);
  const std::string chunk = "10000\r\n" + std::string(1 << 16, 'u') + "\r\n";
  socket.Send("POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
  std::string all;
  for (int i = 0; i < 320; ++i) all += chunk;
  std::thread sender([&] { socket.Send(all + "0\r\n\r\n"); });
  std::string seen;
  while (seen.find("POST /x uuu") == std::string::npos && socket.Receive(&seen)) {
  }
  EXPECT_GE(Turns(relay) - before, 320U / 12);
  sender.join();
}

// All descriptors of the process are in use but for those that `FreeOne` gives up.
class Descriptors {
 public:
  Descriptors() {
    getrlimit(RLIMIT_NOFILE, &before_);
    const rlimit few{std::min<rlim_t>(before_.rlim_cur, 256), before_.rlim_max};
    setrlimit(RLIMIT_NOFILE, &few);
    for (int fd = ::open("/dev/null", O_RDONLY); fd >= 0; fd = ::dup(fd)) taken_.push_back(fd);
  }
  ~Descriptors() {
    for (const int fd : taken_) ::close(fd);
    setrlimit(RLIMIT_NOFILE, &before_);
  }
  void FreeOne() {
    ::close(taken_.back());
    taken_.pop_back();
  }

 private:
  rlimit before_{};
  std::vector<int> taken_;
};

TEST(Newcomers, AreToldWhenThereAreNoDescriptors) {
  TestRelay relay(EchoHooks());
  RawSocket early = relay.Connect();
  early.Send(kGet);
  early.ReadUntil("GET /x");
  {
    Descriptors none;
    none.FreeOne();  // for this end
    for (int i = 0; i < 5; ++i) {
      RawSocket late = relay.Connect();
      ASSERT_TRUE(late.connected());
      late.Send(kGet);
      EXPECT_THAT(late.ReadToEnd(), ::testing::StartsWith("HTTP/1.1 503 "));
    }
    early.Send(kGet);
    EXPECT_THAT(early.ReadUntil("GET /x"), ::testing::HasSubstr("200 OK"));
  }
  EXPECT_THAT(relay.Ask(kGetClose), ::testing::HasSubstr("200 OK"));
}

}  // namespace
}  // namespace llmd::relay::testing
