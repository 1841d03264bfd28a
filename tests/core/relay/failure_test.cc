// Upstreams that fail: before their answer the policy is asked, after it the client sees a cut.
#include "fixture.h"

namespace llmd::relay::testing {
namespace {

constexpr std::string_view kSseHead =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

std::string Chunk(const std::string& content) {
  char size[16];
  std::snprintf(size, sizeof size, "%zx\r\n", content.size());
  return size + content + "\r\n";
}

uint16_t ClosedPort() {
  ScriptedPeer peer(0, [](RawSocket&, int) {});
  return peer.port();
}

TEST(Failure, OfEachKindIsNamed) {
  TestRelay refused(To(ClosedPort()));
  EXPECT_EQ(BodyOf(refused.Ask(kGetClose)), "refused");

  ScriptedPeer early(1, [](RawSocket& socket, int) { ReadRequest(socket); });
  EXPECT_EQ(BodyOf(TestRelay(To(early.port())).Ask(kGetClose)), "reset");

  ScriptedPeer reset(1, [](RawSocket& socket, int) {
    ReadRequest(socket);
    socket.Reset();
  });
  EXPECT_EQ(BodyOf(TestRelay(To(reset.port())).Ask(kGetClose)), "reset");

  ScriptedPeer half(1, [](RawSocket& socket, int) {
    ReadRequest(socket);
    socket.Send("HTTP/1.1 2");
  });
  EXPECT_EQ(BodyOf(TestRelay(To(half.port())).Ask(kGetClose)), "reset");

  for (const char* bytes : {"this is no HTTP\r\n\r\n", "HTTP/1.1 20 OK\r\n\r\n", "\r\n\r\n",
                            "HTTP/1.1 200 OK\r\nA : b\r\n\r\n", "HTTP/1.1 101 Switch\r\n\r\n"}) {
    ScriptedPeer garbage(1, [bytes](RawSocket& socket, int) {
      ReadRequest(socket);
      socket.Send(bytes);
      ReadRequest(socket);
    });
    EXPECT_EQ(BodyOf(TestRelay(To(garbage.port())).Ask(kGetClose)), "protocol") << bytes;
  }

  ScriptedPeer silent(1, [](RawSocket& socket, int) {
    ReadRequest(socket);
    ReadRequest(socket);
  });
  Hooks hooks = To(silent.port());
  hooks.options.first_byte_timeout = std::chrono::milliseconds(100);
  EXPECT_EQ(BodyOf(TestRelay(hooks).Ask(kGetClose)), "timeout");
}

TEST(Failure, MayBeMadeGoodElsewhere) {
  ScriptedPeer good(1, [](RawSocket& socket, int) {
    ReadRequest(socket);
    socket.Send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood");
    ReadRequest(socket);
  });
  ScriptedPeer bad(1, [](RawSocket& socket, int) { ReadRequest(socket); });
  Hooks hooks = To(bad.port());
  const Target next = Loopback(good.port());
  hooks.on_failure = [next](Call& call, relay::Failure, std::string_view) {
    SendOptions options;
    options.target = next;
    call.Send(options);
  };
  TestRelay relay(hooks);
  EXPECT_EQ(BodyOf(relay.Ask(
                "POST /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 2\r\n\r\nab")),
            "good");
}

TEST(Failure, ThatIsToldAgainAndAgainDoesNotStack) {
  Hooks hooks = To(ClosedPort());
  int failures = 0;
  hooks.on_failure = [&](Call& call, relay::Failure, std::string_view) {
    if (++failures == 2000) return call.Answer(502, {}, "enough");
    SendOptions options;
    options.target = hooks.target;
    call.Send(options);
  };
  TestRelay relay(hooks);
  EXPECT_EQ(BodyOf(relay.Ask(kGetClose)), "enough");
}

TEST(Failure, AFreshConnectionIsNotReplayed) {
  std::atomic<int> connections{0};
  ScriptedPeer peer(2, [&](RawSocket& socket, int) {
    ++connections;
    ReadRequest(socket);
  });
  {
    TestRelay relay(To(peer.port()));
    EXPECT_EQ(BodyOf(relay.Ask(kGetClose)), "reset");
  }
  EXPECT_EQ(connections, 1);
  RawSocket::Connect(peer.port());  // lets the peer end
}

TEST(Failure, AnEarlyAnswerToAnUploadCounts) {
  ScriptedPeer peer(1, [](RawSocket& socket, int) {
    std::string seen;
    socket.Receive(&seen);
    socket.Send("HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig");
  });
  TestRelay relay(To(peer.port()));
  RawSocket socket = relay.Connect();
  socket.Send(
      "POST /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 9000000\r\n\r\n" +
      std::string(9'000'000, 'q'));
  const std::string seen = socket.ReadToEnd();
  // The answer can be lost to the reset that follows it; a clean 200 it never is.
  EXPECT_TRUE(seen.starts_with("HTTP/1.1 413") || BodyOf(seen) == "reset") << seen;
}

struct CutCase {
  const char* name;
  std::string before;    // of the stream, in one chunk
  std::string expected;  // what the client has of it before the error event
};

class Cuts : public ::testing::TestWithParam<CutCase> {};

TEST_P(Cuts, GiveAnErrorEventOfItsOwnAndNoDone) {
  ScriptedPeer peer(1, [](RawSocket& socket, int) {
    ReadRequest(socket);
    socket.Send(std::string(kSseHead) + Chunk("data: {\"a\":1}\n\n"));
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    socket.Send(Chunk(GetParam().before));
  });
  TestRelay relay(To(peer.port()));
  RawSocket socket = relay.Connect();
  socket.Send(kGet);
  const std::string seen = socket.ReadToEnd();  // the connection closes
  const std::string error =
      "data: " + http::ErrorBody(502, "the model server broke off its answer") + "\n\n";
  EXPECT_EQ(BodyOf(seen), "data: {\"a\":1}\n\n" + GetParam().expected + error);
  const auto ends = relay.journal.WaitForEnds(1);
  EXPECT_TRUE(ends[0].cut);
  EXPECT_FALSE(ends[0].whole);
}

INSTANTIATE_TEST_SUITE_P(
    Tails, Cuts,
    ::testing::Values(CutCase{"BetweenEvents", "data: {\"b\":2}\n\n", "data: {\"b\":2}\n\n"},
                      CutCase{"WithinData", "data: {\"choices\":[{\"te", ""},
                      CutCase{"BeforeTheBlankLine", "data: {\"b\":2}\n", "data: {\"b\":2}\n\n"},
                      CutCase{"WithinAComment", ": keep-al", ""},
                      CutCase{"AfterAComment", ": keep-alive\n", ": keep-alive\n\n"},
                      CutCase{"CrLf", "data: x\r\n\r\n", "data: x\r\n\r\n"},
                      CutCase{"HalfCrLf", "data: x\r\n\r", "data: x\r\n\r\n\n"}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(Cut, WithinAChunkGivesAnErrorEventToo) {
  ScriptedPeer peer(1, [](RawSocket& socket, int) {
    ReadRequest(socket);
    socket.Send(std::string(kSseHead) + "400\r\ndata: {\"a\":1}\n\ndata: {\"b");
  });
  TestRelay relay(To(peer.port()));
  const std::string seen = relay.Ask(kGet);
  EXPECT_EQ(BodyOf(seen), "data: {\"a\":1}\n\ndata: " +
                              http::ErrorBody(502, "the model server broke off its answer") +
                              "\n\n");
}

TEST(Cut, OfALineThatWaitedTooLongIsEndedFirst) {
  ScriptedPeer peer(1, [](RawSocket& socket, int) {
    ReadRequest(socket);
    socket.Send(std::string(kSseHead) + Chunk(": keep-al"));
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
  });
  TestRelay relay(To(peer.port()));
  EXPECT_THAT(BodyOf(relay.Ask(kGet)), ::testing::StartsWith(": keep-al\n\ndata: {\"error\""));
}

TEST(Cut, WhateverIsNoPlainEventStreamIsCutAndNeverEndedCleanly) {
  for (const std::string head :
       {"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n",
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Encoding: gzip\r\n"
        "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"}) {
    ScriptedPeer peer(1, [&](RawSocket& socket, int) {
      ReadRequest(socket);
      socket.Send(head);
    });
    TestRelay relay(To(peer.port()));
    const std::string seen = relay.Ask(kGet);
    EXPECT_THAT(seen,
                ::testing::EndsWith(
                    "abc" + std::string(head.find("Length") == std::string::npos ? "\r\n" : "")))
        << head;
    EXPECT_THAT(seen, ::testing::Not(::testing::HasSubstr("error")));
    EXPECT_TRUE(relay.journal.WaitForEnds(1)[0].cut);
  }
}

TEST(Cut, WithoutAFramingIsAReset) {
  ScriptedPeer peer(1, [](RawSocket& socket, int) {
    ReadRequest(socket);
    socket.Send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  });
  TestRelay relay(To(peer.port()));
  RawSocket socket = relay.Connect();
  socket.Send("GET /x HTTP/1.0\r\n\r\n");
  socket.ReadToEnd();
  EXPECT_TRUE(socket.reset());
}

TEST(Cut, ACleanEndWithoutDoneIsNoFailure) {
  ScriptedPeer peer(1, [](RawSocket& socket, int) {
    ReadRequest(socket);
    socket.Send(std::string(kSseHead) + Chunk("data: 1\n\n") + "0\r\n\r\n");
    ReadRequest(socket);
  });
  TestRelay relay(To(peer.port()));
  EXPECT_EQ(BodyOf(relay.Ask(kGetClose)), "data: 1\n\n");
}

TEST(Cut, TheGapTimeoutIsOne) {
  ScriptedPeer peer(1, [](RawSocket& socket, int) {
    ReadRequest(socket);
    socket.Send(std::string(kSseHead) + Chunk("data: 1\n\n"));
    ReadRequest(socket);
  });
  Hooks hooks = To(peer.port());
  hooks.options.gap_timeout = std::chrono::milliseconds(100);
  TestRelay relay(hooks);
  EXPECT_THAT(BodyOf(relay.Ask(kGet)), ::testing::StartsWith("data: 1\n\ndata: {\"error\""));
}

// The request's own time: no fault of the upstream's, and no piece of the answer puts it off.
TEST(Deadline, OfALegIsItsOwnKindOfFailure) {
  ScriptedPeer silent(1, [](RawSocket& socket, int) {
    ReadRequest(socket);
    ReadRequest(socket);
  });
  Hooks hooks = To(silent.port());
  hooks.on_request = [&](Call& call) {
    SendOptions options;
    options.target = hooks.target;
    options.deadline = call.now() + std::chrono::milliseconds(50);
    call.Send(options);
  };
  EXPECT_EQ(BodyOf(TestRelay(hooks).Ask(kGetClose)), "deadline");
}

TEST(Deadline, CutsAnAnswerThatIsUnderWay) {
  ScriptedPeer endless(1, [](RawSocket& socket, int) {
    ReadRequest(socket);
    socket.Send(std::string(kSseHead));
    while (socket.Send(Chunk("data: 1\n\n")))
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
  });
  Hooks hooks = To(endless.port());
  hooks.on_request = [&](Call& call) {
    SendOptions options;
    options.target = hooks.target;
    options.deadline = call.now() + std::chrono::milliseconds(100);
    call.Send(options);
  };
  TestRelay relay(hooks);
  EXPECT_THAT(relay.Ask(kGet), ::testing::HasSubstr("data: {\"error\""));
  EXPECT_TRUE(relay.journal.WaitForEnds(1)[0].cut);
}

// A refusal of one engine is kept aside while another one is asked.
Hooks CollectingHooks(uint16_t first, uint16_t second, size_t bytes) {
  Hooks hooks = To(first);
  const Target next = Loopback(second);
  hooks.on_response_head = [bytes](Call& call, const http::ResponseView& head) {
    if (head.status == 200) return call.Forward({}, BodyMode::kPass);
    call.Collect(bytes);
  };
  hooks.on_collected = [next](Call& call, const http::ResponseView& head, std::string_view body) {
    call.context = new std::string(std::to_string(head.status) + " " +
                                   std::string(head.headers.Get("x-why").value_or("")) + " " +
                                   std::string(body));
    SendOptions options;
    options.target = next;
    call.Send(options);
  };
  hooks.on_failure = [](Call& call, relay::Failure failure, std::string_view) {
    if (call.context == nullptr) return call.Answer(502, {}, NameOf(failure));
    call.Answer(503, {}, *static_cast<std::string*>(call.context));
  };
  hooks.on_end = [](Call& call) { delete static_cast<std::string*>(call.context); };
  return hooks;
}

TEST(Collect, KeepsARefusalWholeWhileAnotherEngineIsAsked) {
  for (const std::string framing :
       {"Content-Length: 7\r\n\r\n{\"a\":1}",
        "Transfer-Encoding: chunked\r\n\r\n3\r\n{\"a\r\n4\r\n\":1}\r\n0\r\n\r\n",
        "Connection: close\r\n\r\n{\"a\":1}"}) {
    ScriptedPeer busy(1, [&framing](RawSocket& socket, int) {
      ReadRequest(socket);
      const size_t head = framing.find("\r\n\r\n") + 4;
      socket.Send("HTTP/1.1 429 Busy\r\nX-Why: full\r\n" + framing.substr(0, head));
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      socket.Send(framing.substr(head));
    });
    TestRelay relay(CollectingHooks(busy.port(), ClosedPort(), 1000));
    EXPECT_EQ(BodyOf(relay.Ask(kGetClose)), "429 full {\"a\":1}") << framing;
  }
}

TEST(Collect, LeavesTheConnectionUsable) {
  ScriptedPeer engine(1, [](RawSocket& socket, int) {
    ReadRequest(socket);
    socket.Send("HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nfull");
    ReadRequest(socket);
    socket.Send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood");
    ReadRequest(socket);
  });
  TestRelay relay(CollectingHooks(engine.port(), engine.port(), 1000));
  EXPECT_EQ(BodyOf(relay.Ask(kGetClose)), "good");
  EXPECT_EQ(relay.Sum().upstream_connects, 1U);
}

TEST(Collect, HasABound) {
  ScriptedPeer engine(1, [](RawSocket& socket, int) {
    ReadRequest(socket);
    socket.Send("HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n12345678\r\n");
    ReadRequest(socket);
  });
  TestRelay relay(CollectingHooks(engine.port(), ClosedPort(), 7));
  EXPECT_EQ(BodyOf(relay.Ask(kGetClose)), "ours");
}

TEST(Drop, BreaksALegOffWithoutAHook) {
  ScriptedPeer silent(1, [](RawSocket& socket, int) {
    ReadRequest(socket);
    ReadRequest(socket);  // until it is dropped
  });
  ScriptedPeer good(1, [](RawSocket& socket, int) {
    ReadRequest(socket);
    socket.Send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood");
    ReadRequest(socket);
  });
  Hooks hooks;
  bool dropped = false;
  hooks.on_request = [&](Call& call) {
    SendOptions options;
    options.target = Loopback(silent.port());
    call.Send(options);
    call.SetTimer(std::chrono::milliseconds(30));
  };
  hooks.on_timer = [&](Call& call) {
    if (!std::exchange(dropped, true)) {
      call.Drop();
      call.Drop();
      return call.SetTimer(std::chrono::milliseconds(30));
    }
    SendOptions options;
    options.target = Loopback(good.port());
    call.Send(options);
  };
  TestRelay relay(hooks);
  EXPECT_EQ(BodyOf(relay.Ask(kGetClose)), "good");
  EXPECT_THAT(relay.journal.lines(), ::testing::IsEmpty());
}

TEST(Cut, TheErrorEventMayHaveAName) {
  ScriptedPeer peer(1, [](RawSocket& socket, int) {
    ReadRequest(socket);
    socket.Send(std::string(kSseHead) + Chunk("event: x\ndata: 1\n"));
  });
  Hooks hooks = To(peer.port());
  hooks.on_head = [](Call& call) { call.error_event = "error"; };
  TestRelay relay(hooks);
  EXPECT_THAT(BodyOf(relay.Ask(kGet)),
              ::testing::StartsWith("event: x\ndata: 1\n\nevent: error\ndata: {\"error\""));
}

}  // namespace
}  // namespace llmd::relay::testing
