#include "llmd/http/proxy.h"

#include <gtest/gtest.h>

#include <atomic>
#include <utility>

#include "fixture.h"

namespace llmd::http {
namespace {
using testing::Latch;
using testing::RawSocket;
using testing::ScriptedPeer;
using testing::TestServer;

// A reverse proxy in front of one upstream.
struct ProxyTest : ::testing::Test {
  ProxyTest()
      : proxy([this](Exchange& exchange) { return Forward(exchange); }),
        client(*proxy.runtime, {}) {}
  ~ProxyTest() override { proxy.server->Stop(Duration::zero()); }

  Task<void> Forward(Exchange& exchange) {
    const StatusOr<std::string> body = co_await exchange.ReadAll();
    if (!body.ok()) co_return;
    CallOptions options;
    HostPort peer{"127.0.0.1", port};
    auto upstream = co_await client.Call(std::move(peer), ForwardHead(exchange), *body, options);
    if (!upstream.ok()) {
      Response answer = JsonResponse(502, "{}");
      (void)co_await exchange.Send(std::move(answer));
      co_return;
    }
    const RelayResult result = co_await Relay(exchange, **upstream, hooks);
    if (result.status.code() == StatusCode::kUnavailable) {
      (void)co_await exchange.Write("data: {\"error\":1}\n\n");
      exchange.Abort();
    }
    ended.Set(result);
  }

  // Sends one request through the proxy to a peer that answers with these bytes and closes.
  std::string Ask(std::string request, std::string wire) {
    ScriptedPeer peer(1, [&](RawSocket& socket, int) {
      seen = socket.ReadUntil("\r\n\r\n");
      socket.Send(wire);
    });
    port = peer.port();
    RawSocket socket = proxy.Connect();
    socket.Send(request);
    return socket.ReadToEnd();
  }

  std::atomic<uint16_t> port{0};
  RelayHooks hooks;
  Latch<RelayResult> ended;
  std::string seen;
  TestServer proxy;
  Client client;
};

const char kGet[] = "GET /p?q=1 HTTP/1.1\r\nHost: front\r\nConnection: close\r\n\r\n";

TEST_F(ProxyTest, KeepsHopByHopLinesOnTheirSide) {
  const std::string answer =
      Ask("GET /p HTTP/1.1\r\nHost: front\r\nConnection: close, X-Mine\r\nX-Mine: 1\r\nUpgrade: "
          "h2c\r\nTE: trailers\r\n"
          "X-End: 2\r\nX-Forwarded-For: 9.9.9.9\r\n\r\n",
          "HTTP/1.1 200 Fine\r\nConnection: X-Theirs\r\nX-Theirs: 1\r\nKeep-Alive: 5\r\nX-Up: "
          "3\r\nContent-Length: "
          "2\r\n\r\nok");
  for (const char* line : {"X-Mine", "Upgrade", "TE:", "Connection"})
    EXPECT_EQ(seen.find(line), std::string::npos) << line;
  EXPECT_NE(seen.find("Host: front\r\n"), std::string::npos);
  EXPECT_NE(seen.find("X-End: 2\r\n"), std::string::npos);
  EXPECT_NE(seen.find("X-Forwarded-For: 9.9.9.9, 127.0.0.1\r\n"), std::string::npos);
  EXPECT_TRUE(answer.starts_with("HTTP/1.1 200 Fine\r\n"));
  for (const char* line : {"X-Theirs", "Keep-Alive"})
    EXPECT_EQ(answer.find(line), std::string::npos) << line;
  EXPECT_NE(answer.find("X-Up: 3\r\n"), std::string::npos);
  EXPECT_NE(answer.find("Content-Length: 2\r\n"), std::string::npos);
  EXPECT_TRUE(answer.ends_with("\r\n\r\nok"));
}

TEST_F(ProxyTest, PassesBytesUnmodified) {
  const std::string answer = Ask(kGet,
                                 "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n: "
                                 "odd\r\n\r\ndata:1\r\rdata: [DONE]\n\n");
  EXPECT_NE(answer.find("\r\n\r\n"), std::string::npos);
  std::string content;
  for (const char* part : {": odd\r\n\r\ndata:1\r\rdata: [DONE]\n\n"}) content += part;
  EXPECT_NE(answer.find(content), std::string::npos);
  EXPECT_TRUE(answer.ends_with("0\r\n\r\n"));
  EXPECT_TRUE(ended.Get().status.ok());
}

TEST_F(ProxyTest, LetsHooksEditHeadPiecesAndEnd) {
  std::string upper;
  hooks.on_head = [](ResponseHead& head) { head.headers.Set("X-Seen", "1"); };
  hooks.on_chunk = [&](std::string_view piece) {
    upper.assign(piece);
    for (char& c : upper) c = static_cast<char>(std::toupper(c));
    return std::string_view(upper);
  };
  hooks.on_end = [] { return std::string("tail"); };
  const std::string answer = Ask(kGet, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc");
  EXPECT_NE(answer.find("X-Seen: 1\r\n"), std::string::npos);
  EXPECT_TRUE(answer.ends_with("3\r\nABC\r\n4\r\ntail\r\n0\r\n\r\n")) << answer;
  EXPECT_EQ(ended.Get().bytes, 7u);
}

TEST_F(ProxyTest, ReportsAnUpstreamCutAndLeavesTheExchangeOpen) {
  const std::string answer =
      Ask(kGet, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n");
  EXPECT_NE(answer.find("data: {\"error\":1}\n\n"), std::string::npos);
  EXPECT_FALSE(answer.ends_with("0\r\n\r\n"));
  const RelayResult result = ended.Get();
  EXPECT_EQ(result.status.code(), StatusCode::kUnavailable);
  EXPECT_FALSE(result.client_gone);
}

TEST_F(ProxyTest, PassesTheHeadOfAHeadRequest) {
  const std::string answer = Ask("HEAD /p HTTP/1.1\r\nHost: front\r\nConnection: close\r\n\r\n",
                                 "HTTP/1.1 200 OK\r\nContent-Length: 77\r\n\r\n");
  EXPECT_NE(answer.find("Content-Length: 77\r\n"), std::string::npos);
  EXPECT_TRUE(answer.ends_with("\r\n\r\n"));
  EXPECT_TRUE(ended.Get().status.ok());
}

TEST_F(ProxyTest, CancelsASilentUpstreamWhenTheClientLeaves) {
  Latch<bool> upstream_saw_end;
  ScriptedPeer peer(1, [&](RawSocket& socket, int) {
    socket.ReadUntil("\r\n\r\n");
    socket.Send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n");
    socket.ReadToEnd();
    upstream_saw_end.Set(socket.eof() || socket.reset());
  });
  port = peer.port();
  RawSocket socket = proxy.Connect();
  socket.Send(kGet);
  socket.ReadUntil("x\r\n");
  socket.Close();
  ASSERT_TRUE(upstream_saw_end.Ready());
  EXPECT_TRUE(upstream_saw_end.Get());
  const RelayResult result = ended.Get();
  EXPECT_EQ(result.status.code(), StatusCode::kCancelled);
  EXPECT_TRUE(result.client_gone);
}

TEST_F(ProxyTest, ASlowReaderHoldsTheUpstreamBack) {
  std::atomic<size_t> sent{0};
  ScriptedPeer peer(1, [&](RawSocket& socket, int) {
    socket.ReadUntil("\r\n\r\n");
    socket.Send("HTTP/1.1 200 OK\r\n\r\n");
    const std::string piece(1 << 16, 'x');
    for (int i = 0; i < 1024 && socket.Send(piece); ++i) sent += piece.size();
  });
  port = peer.port();
  RawSocket socket = proxy.Connect();
  socket.Send(kGet);
  EXPECT_FALSE(ended.Ready(std::chrono::milliseconds(100)));
  EXPECT_LT(sent.load(), size_t{32} << 20);
  EXPECT_GT(socket.ReadToEnd().size(), size_t{64} << 20);
  EXPECT_EQ(ended.Get().bytes, size_t{64} << 20);
}

}  // namespace
}  // namespace llmd::http
