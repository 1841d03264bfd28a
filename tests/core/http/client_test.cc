#include "llmd/http/client.h"

#include <gtest/gtest.h>

#include <atomic>

#include "fixture.h"

namespace llmd::http {
namespace {
using testing::Echo;
using testing::Latch;
using testing::RawSocket;
using testing::ScriptedPeer;
using testing::TestServer;

struct ClientTest : ::testing::Test {
  ClientTest() : runtime(*Runtime::Create(1)), client(*runtime, Options()) {}
  static ClientOptions Options() {
    ClientOptions options;
    options.connect_timeout = std::chrono::seconds(5);
    return options;
  }
  StatusOr<Response> Get(uint16_t port, CallOptions options = {}, std::string method = "GET",
                         std::string body = "") {
    RequestHead head;
    head.method = std::move(method);
    head.target = "/t";
    return client.FetchBlocking({"127.0.0.1", port}, std::move(head), std::move(body), options);
  }
  // What a peer that answers one request with these bytes and closes makes of a Fetch.
  StatusOr<Response> Answered(std::string wire, std::string method = "GET") {
    ScriptedPeer peer(1, [&](RawSocket& socket, int) {
      socket.ReadUntil("\r\n\r\n");
      socket.Send(wire);
    });
    CallOptions options;
    options.first_byte_timeout = options.read_timeout = std::chrono::seconds(5);
    return Get(peer.port(), options, std::move(method));
  }
  std::unique_ptr<Runtime> runtime;
  Client client;
};

TEST_F(ClientTest, ReadsEveryKindOfBody) {
  EXPECT_EQ(Answered("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")->body, "hello");
  EXPECT_EQ(
      Answered(
          "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n")
          ->body,
      "hello");
  EXPECT_EQ(Answered("HTTP/1.0 200 OK\r\n\r\nhello")->body, "hello");
  EXPECT_EQ(Answered("HTTP/1.1 204 No Content\r\n\r\n")->head.status, 204);
  EXPECT_EQ(Answered("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "HEAD")->body, "");
  EXPECT_EQ(Answered("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nA: b\r\n\r\nHTTP/1.1 200 "
                     "OK\r\nContent-Length: "
                     "1\r\n\r\nx")
                ->body,
            "x");
}

TEST_F(ClientTest, NeverTakesACutOrJunkForAnAnswer) {
  for (const std::string& wire :
       {std::string(""), std::string("HTTP/1.1 20"),
        std::string("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n"),
        std::string("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell"),
        std::string("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"),
        std::string("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n"),
        std::string("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
        std::string("SSH-2.0-OpenSSH\r\n\r\n"), std::string("garbage"),
        std::string("HTTP/1.1 101 Switch\r\n\r\n"),
        std::string("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello"),
        "HTTP/1.1 200 OK\r\nX: " + std::string(70000, 'x') + "\r\n\r\n"}) {
    const auto answer = Answered(wire);
    EXPECT_EQ(answer.status().code(), StatusCode::kUnavailable) << wire.substr(0, 60);
  }
}

TEST_F(ClientTest, SendsHostAndLength) {
  Latch<std::string> seen;
  ScriptedPeer peer(1, [&](RawSocket& socket, int) {
    seen.Set(socket.ReadUntil("body"));
    socket.Send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
  });
  ASSERT_TRUE(Get(peer.port(), {}, "POST", "body").ok());
  EXPECT_EQ(seen.Get(), "POST /t HTTP/1.1\r\nHost: 127.0.0.1:" + std::to_string(peer.port()) +
                            "\r\nContent-Length: 4\r\n\r\nbody");
}

TEST_F(ClientTest, UsesAConnectionAgain) {
  std::atomic<int> connections{0};
  ScriptedPeer peer(1, [&](RawSocket& socket, int) {
    ++connections;
    for (int i = 0; i < 3; ++i) {
      socket.ReadUntil("\r\n\r\n");
      socket.Send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    }
  });
  for (int i = 0; i < 3; ++i) EXPECT_EQ(Get(peer.port())->body, "ok");
  EXPECT_EQ(connections, 1);
}

TEST_F(ClientTest, ReplaysOnceWhatAReusedConnectionLost) {
  ScriptedPeer peer(2, [&](RawSocket& socket, int n) {
    socket.ReadUntil("\r\n\r\n");
    socket.Send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n" + std::to_string(n));
    // The first connection dies with the second request in it.
    if (n == 0) socket.ReadUntil("\r\n\r\n");
  });
  EXPECT_EQ(Get(peer.port(), {}, "POST", "b")->body, "0");
  EXPECT_EQ(Get(peer.port(), {}, "POST", "b")->body, "1");
}

TEST_F(ClientTest, DoesNotReplayOnAFreshConnectionOrAfterAByte) {
  std::atomic<int> requests{0};
  ScriptedPeer peer(2, [&](RawSocket& socket, int n) {
    socket.ReadUntil("\r\n\r\n");
    ++requests;
    if (n == 0) return;
    socket.Send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx");
    socket.ReadUntil("\r\n\r\n");
    ++requests;
    socket.Send("H");
  });
  EXPECT_EQ(Get(peer.port()).status().code(), StatusCode::kUnavailable);
  EXPECT_TRUE(Get(peer.port()).ok());
  EXPECT_EQ(Get(peer.port()).status().code(), StatusCode::kUnavailable);
  EXPECT_EQ(requests, 3);
}

TEST_F(ClientTest, DropsAConnectionWithMoreThanOneReply) {
  ScriptedPeer peer(2, [&](RawSocket& socket, int n) {
    socket.ReadUntil("\r\n\r\n");
    const std::string reply = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n" + std::to_string(n);
    socket.Send(n == 0 ? reply + "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil" : reply);
    if (n == 0) socket.ReadToEnd();
  });
  EXPECT_EQ(Get(peer.port())->body, "0");
  EXPECT_EQ(Get(peer.port())->body, "1");
}

TEST_F(ClientTest, TakesAnAnswerThatComesBeforeTheBodyIsSent) {
  ScriptedPeer peer(1, [&](RawSocket& socket, int) {
    socket.ReadUntil("\r\n\r\n");
    socket.Send("HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno");
    std::string rest;
    while (rest.size() < (8u << 20) && socket.Receive(&rest)) {
    }
  });
  const auto answer = Get(peer.port(), {}, "POST", std::string(64 << 20, 'x'));
  ASSERT_TRUE(answer.ok()) << answer.status().ToString();
  EXPECT_EQ(answer->head.status, 413);
}

TEST_F(ClientTest, NamesThePeerThatRefuses) {
  uint16_t port = 0;
  {
    port = TestServer(Echo).server->port();
  }
  const auto answer = Get(port);
  EXPECT_EQ(answer.status().code(), StatusCode::kUnavailable);
  EXPECT_TRUE(answer.status().message().starts_with("connect 127.0.0.1:" + std::to_string(port)))
      << answer.status().ToString();
}

TEST_F(ClientTest, KeepsItsDeadlines) {
  Latch<bool> over;
  ScriptedPeer peer(2, [&](RawSocket& socket, int n) {
    socket.ReadUntil("\r\n\r\n");
    if (n == 1) socket.Send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe");
    socket.ReadToEnd();
  });
  CallOptions options;
  options.first_byte_timeout = std::chrono::milliseconds(30);
  EXPECT_EQ(Get(peer.port(), options).status().code(), StatusCode::kDeadlineExceeded);
  options.first_byte_timeout = std::chrono::seconds(10);
  options.read_timeout = std::chrono::milliseconds(30);
  EXPECT_EQ(Get(peer.port(), options).status().code(), StatusCode::kDeadlineExceeded);
}

TEST_F(ClientTest, ResolvesNames) {
  TestServer server(Echo);
  const auto answer =
      client.FetchBlocking({"localhost", server.server->port()}, RequestHead{}, "", {});
  ASSERT_TRUE(answer.ok()) << answer.status().ToString();
  EXPECT_EQ(answer->body, "GET / ");
}

TEST_F(ClientTest, BoundsAFetchedBody) {
  TestServer server(Echo);
  StatusOr<Response> answer = Internal("");
  testing::RunOn(
      *runtime,
      [](Client& c, HostPort peer, StatusOr<Response>& out) -> Task<void> {
        RequestHead head;
        CallOptions options;
        out = co_await c.Fetch(peer, std::move(head), "", options, 3);
      },
      client, server.address(), answer);
  EXPECT_EQ(answer.status().code(), StatusCode::kResourceExhausted);
}

// Cancels from another coroutine of the loop once `when` is set.
Task<void> CancelWhen(Cancellation& cancel, std::atomic<bool>& when) {
  while (!when) (void)co_await SleepFor(std::chrono::milliseconds(1));
  cancel.Cancel();
}

struct CancelCase {
  Status call, read;
};
Task<void> CallAndRead(Client& client, HostPort peer, Cancellation& cancel, CancelCase& out) {
  RequestHead head;
  CallOptions options;
  auto stream = co_await client.Call(peer, std::move(head), "", options, &cancel);
  out.call = stream.status();
  while (stream.ok()) {
    const auto piece = co_await (*stream)->Read();
    out.read = piece.status();
    if (!piece.ok() || piece->empty()) break;
  }
}

TEST_F(ClientTest, CancelsACallAndAStreamUnderWay) {
  for (const std::string wire : {"", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe"}) {
    std::atomic<bool> when{false};
    Latch<bool> peer_saw_end;
    ScriptedPeer peer(1, [&](RawSocket& socket, int) {
      socket.ReadUntil("\r\n\r\n");
      socket.Send(wire);
      when = true;
      socket.ReadToEnd();
      peer_saw_end.Set(socket.eof() || socket.reset());
    });
    Cancellation cancel;
    CancelCase result;
    runtime->Spawn(CancelWhen(cancel, when));
    runtime->BlockOn(CallAndRead(client, {"127.0.0.1", peer.port()}, cancel, result));
    EXPECT_EQ((wire.empty()       ? result.call
               : result.call.ok() ? result.read
                                  : result.call)
                  .code(),
              StatusCode::kCancelled);
    EXPECT_TRUE(peer_saw_end.Get());
    EXPECT_TRUE(cancel.cancelled());
  }
}

Task<void> CallAndDrop(Client& client, HostPort peer) {
  RequestHead head;
  CallOptions options;
  auto stream = co_await client.Call(peer, std::move(head), "", options);
  EXPECT_TRUE(stream.ok());
}

TEST_F(ClientTest, DroppingAStreamEarlyClosesTheConnection) {
  Latch<bool> peer_saw_end;
  ScriptedPeer peer(1, [&](RawSocket& socket, int) {
    socket.ReadUntil("\r\n\r\n");
    socket.Send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    socket.ReadToEnd();
    peer_saw_end.Set(true);
  });
  runtime->BlockOn(CallAndDrop(client, {"127.0.0.1", peer.port()}));
  ASSERT_TRUE(peer_saw_end.Ready());
}

}  // namespace
}  // namespace llmd::http
