// What the relay reads of clients: the rules of HTTP, pipelining, bodies.
#include "fixture.h"

namespace llmd::relay::testing {
namespace {

class Requests : public ::testing::TestWithParam<int> {
 protected:
  TestRelay relay_{EchoHooks(), Loops(GetParam())};
};
INSTANTIATE_TEST_SUITE_P(Loops, Requests, ::testing::Values(1, 4));

TEST_P(Requests, KeepsTheConnectionAlive) {
  RawSocket socket = relay_.Connect();
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(socket.Send(kGet));
    EXPECT_THAT(socket.ReadUntil("GET /x "), ::testing::HasSubstr("HTTP/1.1 200 OK"));
  }
  EXPECT_EQ(relay_.Sum().accepted, 1U);
}

TEST_P(Requests, AnswersPipelinedRequestsInOrder) {
  RawSocket socket = relay_.Connect();
  std::string all;
  for (int i = 0; i < 50; ++i)
    all += "POST /" + std::to_string(i) + " HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc";
  all += kGetClose;
  ASSERT_TRUE(socket.Send(all));
  const std::string seen = socket.ReadToEnd();
  size_t at = 0;
  for (int i = 0; i < 50; ++i) {
    at = seen.find("POST /" + std::to_string(i) + " abc", at);
    ASSERT_NE(at, std::string::npos) << i;
  }
}

TEST_P(Requests, ReadsBodiesInAnyPieces) {
  const std::string head = "POST /p HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: ";
  for (const size_t bytes : {size_t{0}, size_t{1}, size_t{100}, size_t{20'000}, size_t{300'000}}) {
    const std::string body(bytes, 'b');
    RawSocket socket = relay_.Connect();
    const std::string all = head + std::to_string(bytes) + "\r\n\r\n" + body;
    for (size_t at = 0; at < all.size(); at += 65'000) {
      ASSERT_TRUE(socket.Send(std::string_view(all).substr(at, 65'000)));
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    EXPECT_EQ(BodyOf(socket.ReadToEnd()), "POST /p " + body);
  }
}

TEST_P(Requests, UndoesChunks) {
  const std::string head =
      "POST /p HTTP/1.1\r\nHost: h\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
  std::string one_byte_chunks;
  for (int i = 0; i < 1000; ++i) one_byte_chunks += "1\r\nx\r\n";
  EXPECT_EQ(BodyOf(relay_.Ask(head + one_byte_chunks + "0\r\n\r\n")),
            "POST /p " + std::string(1000, 'x'));
  EXPECT_EQ(BodyOf(relay_.Ask(head + "2;name=value\r\nab\r\n0\r\nTrailer: t\r\n\r\n")),
            "POST /p ab");
  RawSocket slow = relay_.Connect();
  for (const char c : head + "3\r\nabc\r\n0\r\n\r\n") {
    ASSERT_TRUE(slow.Send({&c, 1}));
    std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
  EXPECT_EQ(BodyOf(slow.ReadToEnd()), "POST /p abc");
}

TEST_P(Requests, KeepsWhatIsPipelinedBehindChunks) {
  RawSocket socket = relay_.Connect();
  const std::string chunked = "POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
  ASSERT_TRUE(socket.Send(chunked));
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  ASSERT_TRUE(socket.Send("2\r\nab\r\n0\r\n\r\n" + std::string(kGet) + chunked +
                          "1\r\nc\r\n0\r\n\r\n" + std::string(kGetClose)));
  const std::string seen = socket.ReadToEnd();
  EXPECT_THAT(seen, ::testing::HasSubstr("POST /p ab"));
  EXPECT_EQ(RawSocket::Count(seen, "GET /x "), 2);
  EXPECT_THAT(seen, ::testing::HasSubstr("POST /p c"));
}

TEST_P(Requests, GivesLeaveToContinue) {
  RawSocket socket = relay_.Connect();
  socket.Send(
      "POST /p HTTP/1.1\r\nHost: h\r\nConnection: close\r\nExpect: 100-continue\r\n"
      "Content-Length: 2\r\n\r\n");
  EXPECT_EQ(socket.ReadUntil("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
  socket.Send("ok");
  EXPECT_EQ(BodyOf(socket.ReadToEnd()), "POST /p ok");
}

TEST_P(Requests, SpeaksHttp10) {
  const std::string closed = relay_.Ask("GET /a HTTP/1.0\r\n\r\n");
  EXPECT_THAT(closed, ::testing::HasSubstr("Connection: close"));
  RawSocket kept = relay_.Connect();
  kept.Send("GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  EXPECT_THAT(kept.ReadUntil("GET /a "), ::testing::HasSubstr("Connection: keep-alive"));
  kept.Send("GET /b HTTP/1.0\r\n\r\n");
  EXPECT_THAT(kept.ReadToEnd(), ::testing::HasSubstr("GET /b "));
}

TEST_P(Requests, AnswersHeadWithoutABody) {
  const std::string seen = relay_.Ask("HEAD /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
  EXPECT_THAT(seen, ::testing::HasSubstr("Content-Length: 8"));
  EXPECT_EQ(BodyOf(seen), "");
}

TEST_P(Requests, TakesTheAuthorityOfAnAbsoluteForm) {
  EXPECT_EQ(
      BodyOf(relay_.Ask("GET http://other/p?q HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")),
      "GET /p?q ");
  EXPECT_EQ(BodyOf(relay_.Ask("GET http://other HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")),
            "GET / ");
}

struct Bad {
  const char* name;
  std::string bytes;
  int status;
};

class BadRequests : public ::testing::TestWithParam<Bad> {};

TEST_P(BadRequests, AreRefusedAndTheConnectionCloses) {
  TestRelay relay(EchoHooks());
  // A smuggled request stands behind each: it must not be read.
  const std::string seen =
      relay.Ask(GetParam().bytes + "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n");
  EXPECT_THAT(seen, ::testing::StartsWith("HTTP/1.1 " + std::to_string(GetParam().status)));
  EXPECT_THAT(seen, ::testing::HasSubstr("Connection: close"));
  EXPECT_THAT(seen, ::testing::HasSubstr("{\"error\":{\"message\":"));
  EXPECT_THAT(seen, ::testing::Not(::testing::HasSubstr("/smuggled")));
  const auto ends = relay.journal.WaitForEnds(1);
  ASSERT_EQ(ends.size(), 1U);
  EXPECT_TRUE(ends[0].refused);
  EXPECT_EQ(ends[0].status, GetParam().status);
}

std::string PostWith(const std::string& lines, const std::string& body = "") {
  return "POST /p HTTP/1.1\r\nHost: h\r\n" + lines + "\r\n" + body;
}

INSTANTIATE_TEST_SUITE_P(
    Forms, BadRequests,
    ::testing::Values(
        Bad{"BothLengths",
            PostWith("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), 400},
        Bad{"DifferingLengths", PostWith("Content-Length: 3\r\nContent-Length: 4\r\n", "abcd"),
            400},
        Bad{"SignedLength", PostWith("Content-Length: +3\r\n", "abc"), 400},
        Bad{"Folded", "GET / HTTP/1.1\r\nHost: h\r\nA: b\r\n c\r\n\r\n", 400},
        Bad{"BlankBeforeColon", "GET / HTTP/1.1\r\nHost: h\r\nA : b\r\n\r\n", 400},
        Bad{"UnknownCoding", PostWith("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"), 400},
        Bad{"ChunkedTwice",
            PostWith("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), 400},
        Bad{"BadChunkSize", PostWith("Transfer-Encoding: chunked\r\n", "0x3\r\nabc\r\n0\r\n\r\n"),
            400},
        Bad{"BareLf", "GET / HTTP/1.1\nHost: h\n\n", 400},
        Bad{"Nul", std::string("GET / HTTP/1.1\r\nHost: h\r\nA: b") + '\0' + "c\r\n\r\n", 400},
        Bad{"BareCr", "GET / HTTP/1.1\r\nHost: h\r\nA: b\rc\r\n\r\n", 400},
        Bad{"NoHost", "GET / HTTP/1.1\r\n\r\n", 400},
        Bad{"TwoHosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400},
        Bad{"ChunkedIn10", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
        Bad{"Http2", "GET / HTTP/2.0\r\nHost: h\r\n\r\n", 505},
        Bad{"Expectation", PostWith("Expect: more\r\nContent-Length: 1\r\n", "a"), 417},
        Bad{"LongHead", "GET / HTTP/1.1\r\nHost: h\r\nA: " + std::string(70'000, 'a') + "\r\n\r\n",
            431},
        Bad{"ManyLines",
            "GET / HTTP/1.1\r\nHost: h\r\n" +
                [] {
                  std::string s;
                  for (int i = 0; i < 250; ++i) s += "A: b\r\n";
                  return s;
                }() +
                "\r\n",
            431},
        Bad{"DeclaredTooLong", PostWith("Content-Length: 10000000000\r\n"), 413}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(Request, IsRefusedAtOnceWhenItDeclaresTooMuch) {
  TestRelay relay(EchoHooks());
  RawSocket socket = relay.Connect();
  socket.Send(PostWith("Content-Length: 10000000000\r\nExpect: 100-continue\r\n"));
  EXPECT_THAT(socket.ReadToEnd(), ::testing::StartsWith("HTTP/1.1 413"));
}

TEST(Request, ThatIsAnsweredByItsHeadIsNotReadOn) {
  Hooks hooks = EchoHooks();
  hooks.on_head = [](Call& call) { call.Answer(404, {}, "no such route"); };
  TestRelay relay(hooks);
  // Nobody gives leave to send the body.
  RawSocket asks = relay.Connect();
  asks.Send(PostWith("Expect: 100-continue\r\nContent-Length: 5\r\n"));
  const std::string seen = asks.ReadToEnd();
  EXPECT_THAT(seen, ::testing::StartsWith("HTTP/1.1 404"));
  EXPECT_THAT(seen, ::testing::HasSubstr("Connection: close"));
  // A body that is there already does not cost the connection.
  RawSocket has = relay.Connect();
  has.Send(PostWith("Content-Length: 5\r\n", "hello") + std::string(kGetClose));
  EXPECT_EQ(RawSocket::Count(has.ReadToEnd(), "HTTP/1.1 404"), 2);
}

TEST(Request, CutWithinItsBodyIsNoRequest) {
  Hooks hooks = EchoHooks();
  std::atomic<int> requests{0};
  hooks.on_request = [&](Call& call) {
    ++requests;
    call.Answer(200, {}, "");
  };
  TestRelay relay(hooks);
  {
    RawSocket socket = relay.Connect();
    socket.Send(PostWith("Content-Length: 10\r\n", "hello"));
  }
  const auto ends = relay.journal.WaitForEnds(1);
  ASSERT_EQ(ends.size(), 1U);
  EXPECT_TRUE(ends[0].client_gone);
  EXPECT_EQ(requests, 0);
}

TEST(Request, ConnectionsAreSharedOutEvenly) {
  TestRelay relay(EchoHooks(), Loops(4));
  std::vector<RawSocket> sockets;
  for (int i = 0; i < 100; ++i) {
    sockets.push_back(relay.Connect());
    sockets.back().Send(kGet);
    sockets.back().ReadUntil("GET /x ");
  }
  for (const LoopStats& loop : relay.relay->Stats()) {
    EXPECT_GE(loop.connections, 21U);
    EXPECT_LE(loop.connections, 30U);
  }
}

}  // namespace
}  // namespace llmd::relay::testing
