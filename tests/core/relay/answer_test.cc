// How upstreams' answers pass: framing, bytes, heads.
#include "fixture.h"

namespace llmd::relay::testing {
namespace {

// Serves each request on one connection with the same bytes, then closes when `close` says so.
class Engine {
 public:
  explicit Engine(std::string answer, bool close = false, int connections = 1)
      : peer_(connections, [answer = std::move(answer), close, this](RawSocket& socket, int) {
          while (true) {
            const std::string request = ReadRequest(socket);
            if (request.empty()) return;
            {
              const std::lock_guard lock(mutex_);
              requests_.push_back(request);
            }
            socket.Send(answer);
            if (close) return;
          }
        }) {}
  uint16_t port() const { return peer_.port(); }
  std::vector<std::string> requests() {
    const std::lock_guard lock(mutex_);
    return requests_;
  }

 private:
  std::mutex mutex_;
  std::vector<std::string> requests_;
  ScriptedPeer peer_;
};

std::string AnswerOf(const std::string& upstream, std::string_view request = kGetClose,
                     BodyMode mode = BodyMode::kPass, bool close = false) {
  Engine engine(upstream, close);
  Hooks hooks = To(engine.port());
  hooks.mode = mode;
  TestRelay relay(hooks);
  return relay.Ask(request);
}

TEST(Answer, KeepsItsLength) {
  const std::string seen =
      AnswerOf("HTTP/1.1 200 Fine\r\nContent-Length: 5\r\nX-A: b\r\n\r\nhello");
  EXPECT_THAT(seen, ::testing::StartsWith("HTTP/1.1 200 Fine\r\n"));
  EXPECT_THAT(seen, ::testing::HasSubstr("Content-Length: 5\r\n"));
  EXPECT_THAT(seen, ::testing::HasSubstr("X-A: b\r\n"));
  EXPECT_THAT(seen, ::testing::HasSubstr("Date: "));
  EXPECT_EQ(BodyOf(seen), "hello");
}

TEST(Answer, KeepsItsChunks) {
  const std::string seen = AnswerOf(
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n");
  EXPECT_THAT(seen, ::testing::EndsWith("\r\n\r\n2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n"));
}

TEST(Answer, LosesExtensionsAndTrailers) {
  const std::string seen = AnswerOf(
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nab\r\n0\r\nT: r\r\n\r\n");
  EXPECT_THAT(seen, ::testing::EndsWith("\r\n\r\n2\r\nab\r\n0\r\n\r\n"));
}

TEST(Answer, HasNoBodyForHead) {
  const std::string seen = AnswerOf("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n",
                                    "HEAD /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
  EXPECT_THAT(seen, ::testing::HasSubstr("Content-Length: 500\r\n"));
  EXPECT_EQ(BodyOf(seen), "");
}

TEST(Answer, WithoutABody) {
  EXPECT_THAT(AnswerOf("HTTP/1.1 204 No Content\r\n\r\n"),
              ::testing::Not(::testing::HasSubstr("Content-Length")));
  EXPECT_THAT(AnswerOf("HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n"),
              ::testing::HasSubstr("ETag: x"));
  EXPECT_THAT(AnswerOf("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
              ::testing::HasSubstr("Content-Length: 0\r\n"));
}

TEST(Answer, ThatEndsWithItsConnectionIsChunked) {
  const std::string seen =
      AnswerOf("HTTP/1.1 200 OK\r\n\r\nall of it", kGetClose, BodyMode::kPass, true);
  EXPECT_THAT(seen, ::testing::HasSubstr("Transfer-Encoding: chunked"));
  EXPECT_EQ(BodyOf(seen), "all of it");
}

TEST(Answer, ForHttp10IsNotChunked) {
  const std::string seen = AnswerOf(
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n",
      "GET /x HTTP/1.0\r\n\r\n");
  EXPECT_THAT(seen, ::testing::Not(::testing::HasSubstr("chunked")));
  EXPECT_THAT(seen, ::testing::EndsWith("\r\n\r\nabcde"));
  const std::string kept =
      AnswerOf("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab", "GET /x HTTP/1.0\r\n\r\n");
  EXPECT_THAT(kept, ::testing::HasSubstr("Content-Length: 2"));
}

TEST(Answer, ComesAfterInformationalHeads) {
  EXPECT_EQ(
      BodyOf(AnswerOf("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
                      "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab")),
      "ab");
}

TEST(Answer, MayHaveALongHead) {
  const std::string value(60'000, 'v');
  EXPECT_THAT(AnswerOf("HTTP/1.1 200 OK\r\nX-Long: " + value + "\r\nContent-Length: 2\r\n\r\nab"),
              ::testing::HasSubstr(value));
}

TEST(Answer, LosesHopByHopLines) {
  const std::string seen = AnswerOf(
      "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive, X-Hop\r\nKeep-Alive: 5\r\n"
      "X-Hop: secret\r\nUpgrade: h2c\r\nX-End: stays\r\n\r\n");
  EXPECT_THAT(seen, ::testing::Not(::testing::HasSubstr("secret")));
  EXPECT_THAT(seen, ::testing::Not(::testing::HasSubstr("Upgrade")));
  EXPECT_THAT(seen, ::testing::Not(::testing::HasSubstr("Keep-Alive: 5")));
  EXPECT_THAT(seen, ::testing::HasSubstr("X-End: stays"));
  const std::string two = AnswerOf(
      "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: a, b\r\nA: 1\r\nB: 2\r\nC: 3\r\n"
      "Connection: c\r\nX-End: stays\r\n\r\n");
  for (const char* line : {"A: 1", "B: 2", "C: 3"})
    EXPECT_THAT(two, ::testing::Not(::testing::HasSubstr(line)));
  EXPECT_THAT(two, ::testing::HasSubstr("X-End: stays"));
}

TEST(Answer, OfManyTinyChunksPasses) {
  std::string chunks, body;
  for (int i = 0; i < 20'000; ++i) {
    chunks += "1\r\nx\r\n";
    body += "x";
  }
  const std::string head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
  EXPECT_EQ(BodyOf(AnswerOf(head + chunks + "0\r\n\r\n")), body);
  std::string odd;
  for (int i = 0; i < 20'000; ++i) odd += "1;e\r\nx\r\n";
  EXPECT_EQ(BodyOf(AnswerOf(head + odd + "0\r\n\r\n")), body);
}

TEST(Answer, LargeOnesPassWhole) {
  const std::string body(5'000'000, 'z');
  EXPECT_EQ(BodyOf(AnswerOf("HTTP/1.1 200 OK\r\nContent-Length: 5000000\r\n\r\n" + body)), body);
  EXPECT_EQ(BodyOf(AnswerOf("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4c4b40\r\n" +
                            body + "\r\n0\r\n\r\n")),
            body);
}

TEST(Answer, SeveralInOneBurstNeverLeakIntoTheNext) {
  const std::string good = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood";
  const std::string evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
  ScriptedPeer peer(2, [&](RawSocket& socket, int n) {
    ReadRequest(socket);
    socket.Send(n == 0 ? good + evil : good);
    ReadRequest(socket);
  });
  TestRelay relay(To(peer.port()));
  RawSocket socket = relay.Connect();
  for (int i = 0; i < 2; ++i) {
    socket.Send(kGet);
    EXPECT_THAT(socket.ReadUntil("good"), ::testing::Not(::testing::HasSubstr("evil")));
  }
  EXPECT_EQ(relay.Sum().upstream_connects, 2U);
}

TEST(Answer, IsShownAsItPasses) {
  std::string shown;
  int ends = 0;
  Engine engine(
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n");
  Hooks hooks = To(engine.port());
  hooks.mode = BodyMode::kWatch;
  hooks.on_bytes = [&](Call&, std::string_view piece, bool end) {
    shown += piece;
    ends += end ? 1 : 0;
    return Piece{"not sent"};
  };
  TestRelay relay(hooks);
  EXPECT_EQ(BodyOf(relay.Ask(kGetClose)), "abcde");
  EXPECT_EQ(shown, "abcde");
  EXPECT_EQ(ends, 1);
}

TEST(Answer, IsEditedAndFramedAnew) {
  Engine engine("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
  Hooks hooks = To(engine.port());
  hooks.mode = BodyMode::kEdit;
  hooks.on_bytes = [](Call&, std::string_view piece, bool end) {
    static std::string out;
    out = "<" + std::string(piece) + (end ? ">" : "");
    return Piece{out};
  };
  TestRelay relay(hooks);
  const std::string seen = relay.Ask(kGetClose);
  EXPECT_THAT(seen, ::testing::Not(::testing::HasSubstr("Content-Length")));
  EXPECT_EQ(BodyOf(seen), "<hello>");
}

TEST(Answer, HeadEditsReplaceLines) {
  Engine engine("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-A: upstream\r\nX-B: gone\r\n\r\n");
  Hooks hooks = To(engine.port());
  hooks.on_response_head = [](Call& call, const http::ResponseView&) {
    const std::array<HeaderEdit, 3> edits = {HeaderEdit{"x-a", "ours\r\nX-Evil: 1"},
                                             HeaderEdit{"x-b", "", true},
                                             HeaderEdit{"content-length", "7"}};
    call.Forward(edits, BodyMode::kPass);
  };
  TestRelay relay(hooks);
  const std::string seen = relay.Ask(kGetClose);
  EXPECT_THAT(seen, ::testing::HasSubstr("x-a: ours  X-Evil: 1\r\n"));
  EXPECT_THAT(seen, ::testing::Not(::testing::HasSubstr("upstream")));
  EXPECT_THAT(seen, ::testing::Not(::testing::HasSubstr("gone")));
  EXPECT_THAT(seen, ::testing::HasSubstr("Content-Length: 0"));
}

TEST(Leg, CarriesTheRequestAndTheForwardingLines) {
  Engine engine("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
  TestRelay relay(To(engine.port()));
  relay.Ask(
      "POST /v1/x?q=1 HTTP/1.1\r\nHost: client.example\r\nConnection: close, X-Hop\r\nX-Hop: no\r\n"
      "X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Proto: https\r\nUpgrade: h2c\r\nTE: trailers\r\n"
      "Expect: 100-continue\r\nX-Keep: yes\r\nContent-Length: 3\r\n\r\nabc");
  ASSERT_EQ(engine.requests().size(), 1U);
  const std::string sent = engine.requests()[0];
  EXPECT_THAT(sent, ::testing::StartsWith("POST /v1/x?q=1 HTTP/1.1\r\nHost: client.example\r\n"));
  EXPECT_THAT(sent, ::testing::HasSubstr("X-Forwarded-For: 10.0.0.1, 127.0.0.1\r\n"));
  EXPECT_THAT(sent, ::testing::HasSubstr("X-Forwarded-Proto: http\r\n"));
  EXPECT_THAT(sent, ::testing::HasSubstr("X-Forwarded-Host: client.example\r\n"));
  EXPECT_THAT(sent, ::testing::HasSubstr("X-Keep: yes\r\n"));
  for (const char* gone : {"X-Hop", "Upgrade", "TE:", "Expect", "Connection"})
    EXPECT_THAT(sent, ::testing::Not(::testing::HasSubstr(gone)));
  EXPECT_THAT(sent, ::testing::EndsWith("Content-Length: 3\r\n\r\nabc"));
}

TEST(Leg, TakesEditsAndABodyInParts) {
  Engine engine("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
  Hooks hooks;
  const Target target = Loopback(engine.port());
  hooks.on_request = [target](Call& call) {
    const std::array<HeaderEdit, 2> edits = {HeaderEdit{"x-set", "v"},
                                             HeaderEdit{"x-keep", "", true}};
    const std::array<std::string_view, 3> body = {call.body().substr(0, 1), "-inserted-",
                                                  call.body().substr(1)};
    SendOptions options;
    options.target = target;
    options.path = "/other";
    options.headers = edits;
    options.own_body = true;
    options.body = body;
    call.Send(options);
  };
  TestRelay relay(hooks);
  relay.Ask(
      "POST /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\nX-Keep: no\r\nContent-Length: "
      "2\r\n\r\nab");
  const std::string sent = engine.requests().at(0);
  EXPECT_THAT(sent, ::testing::StartsWith("POST /other HTTP/1.1\r\n"));
  EXPECT_THAT(sent, ::testing::HasSubstr("x-set: v\r\n"));
  EXPECT_THAT(sent, ::testing::Not(::testing::HasSubstr("X-Keep")));
  EXPECT_THAT(sent, ::testing::EndsWith("Content-Length: 12\r\n\r\na-inserted-b"));
}

TEST(Leg, ConnectionsAreUsedAgain) {
  Engine engine("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
  TestRelay relay(To(engine.port()));
  RawSocket socket = relay.Connect();
  for (int i = 0; i < 20; ++i) {
    socket.Send(kPost);
    socket.ReadUntil("ok");
  }
  EXPECT_EQ(relay.Sum().upstream_connects, 1U);
  EXPECT_EQ(engine.requests().size(), 20U);
}

TEST(Leg, LargeBodiesArriveWhole) {
  Engine engine("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
  TestRelay relay(To(engine.port()));
  const std::string body(3'000'000, 'q');
  RawSocket socket = relay.Connect();
  socket.Send(
      "POST /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 3000000\r\n\r\n" + body);
  EXPECT_EQ(BodyOf(socket.ReadToEnd()), "ok");
  EXPECT_THAT(engine.requests().at(0), ::testing::EndsWith("\r\n\r\n" + body));
}

// The policy looks at the body before it lets the head go.
TEST(WholeBody, IsReadOnWhileTheHeadWaits) {
  ScriptedPeer engine(1, [](RawSocket& socket, int) {
    ReadRequest(socket);
    socket.Send("HTTP/1.1 200 OK\r\nX-A: 1\r\nContent-Length: 9000\r\n\r\n");
    for (int i = 0; i < 9; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
      socket.Send(std::string(1000, static_cast<char>('a' + i)));
    }
    ReadRequest(socket);
  });
  Hooks hooks = To(engine.port());
  std::string early, shown;
  hooks.on_response_head = [&](Call& call, const http::ResponseView&) {
    early = call.whole_body();
    call.SetTimer(std::chrono::milliseconds(20));
  };
  hooks.on_timer = [&](Call& call) {
    shown = call.whole_body();
    if (shown.empty()) return call.SetTimer(std::chrono::milliseconds(20));
    call.Forward({}, BodyMode::kPass);
  };
  TestRelay relay(hooks);
  const std::string seen = relay.Ask(kGetClose);
  EXPECT_EQ(early, "");
  EXPECT_EQ(shown.size(), 9000U);
  EXPECT_EQ(BodyOf(seen), shown);
  EXPECT_THAT(seen, ::testing::AllOf(::testing::HasSubstr("X-A: 1\r\n"),
                                     ::testing::HasSubstr("Content-Length: 9000\r\n")));
}

TEST(WholeBody, BeyondTheBoundIsNotReadOn) {
  ScriptedPeer engine(1, [](RawSocket& socket, int) {
    ReadRequest(socket);
    socket.Send("HTTP/1.1 200 OK\r\nContent-Length: 70000\r\n\r\n" + std::string(70000, 'x'));
    ReadRequest(socket);
  });
  Hooks hooks = To(engine.port());
  size_t shown = 1;
  hooks.on_response_head = [&](Call& call, const http::ResponseView&) {
    call.SetTimer(std::chrono::milliseconds(50));
  };
  hooks.on_timer = [&](Call& call) {
    shown = call.whole_body().size();
    call.Forward({}, BodyMode::kPass);
  };
  TestRelay relay(hooks);
  EXPECT_EQ(BodyOf(relay.Ask(kGetClose)).size(), 70000U);
  EXPECT_EQ(shown, 0U);
}

}  // namespace
}  // namespace llmd::relay::testing
