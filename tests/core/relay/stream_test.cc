// Streams: at once, held back by slow readers, ended with their clients.
#include <fcntl.h>

#include <future>

#include "fixture.h"

namespace llmd::relay::testing {
namespace {

using std::chrono::milliseconds;
constexpr std::string_view kSseHead =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

class Streams : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Loops, Streams, ::testing::Values(1, 4));

// An engine that sends `before`, then waits for its client to leave and says when it did.
class WaitingEngine {
 public:
  explicit WaitingEngine(std::string before)
      : peer_(1, [this, before = std::move(before)](RawSocket& socket, int) {
          ReadRequest(socket);
          socket.Send(before);
          asked_.set_value();
          std::string rest;
          socket.Receive(&rest);  // the end
          left_.set_value();
        }) {}
  uint16_t port() const { return peer_.port(); }
  void WaitForRequest() { asked_.get_future().wait(); }
  bool LeftWithin(milliseconds limit) {
    return left_.get_future().wait_for(limit) == std::future_status::ready;
  }

 private:
  std::promise<void> asked_, left_;
  ScriptedPeer peer_;
};

TEST_P(Streams, EventsPassAtOnceAndUnchanged) {
  std::promise<void> next;
  const std::string first = "data: \xc3\xa4\n\n", second = ": c\r\nid:1\rdata\n\n";
  ScriptedPeer peer(1, [&](RawSocket& socket, int) {
    ReadRequest(socket);
    socket.Send(std::string(kSseHead) + "a\r\n" + first + "\r\n");
    next.get_future().wait();
    socket.Send("10\r\n" + second + "\r\n0\r\n\r\n");
    ReadRequest(socket);
  });
  TestRelay relay(To(peer.port()), Loops(GetParam()));
  RawSocket socket = relay.Connect();
  socket.Send(kGetClose);
  std::string seen = socket.ReadUntil(first);
  next.set_value();
  seen += socket.ReadToEnd();
  EXPECT_EQ(BodyOf(seen), first + second);
}

TEST_P(Streams, SplitAtAnyByteTheyAreTheSame) {
  const std::string body = "data: {\"text\":\"abc\"}\n\n: comment\ndata: [DONE]\n\n";
  ScriptedPeer peer(1, [&](RawSocket& socket, int) {
    ReadRequest(socket);
    socket.Send(kSseHead);
    for (const char c : body) {
      socket.Send(std::string("1\r\n") + c + "\r\n");
      std::this_thread::sleep_for(milliseconds(1));
    }
    socket.Send("0\r\n\r\n");
    ReadRequest(socket);
  });
  TestRelay relay(To(peer.port()), Loops(GetParam()));
  EXPECT_EQ(BodyOf(relay.Ask(kGetClose)), body);
}

TEST_P(Streams, AClientThatLeavesIsSeenOnAnIdleStream) {
  WaitingEngine engine(std::string(kSseHead) + "9\r\ndata: 1\n\n\r\n");
  TestRelay relay(To(engine.port()), Loops(GetParam()));
  {
    RawSocket socket = relay.Connect();
    socket.Send(kGet);
    socket.ReadUntil("data: 1");
  }
  EXPECT_TRUE(engine.LeftWithin(milliseconds(1000)));
  EXPECT_TRUE(relay.journal.WaitForEnds(1)[0].client_gone);
}

TEST_P(Streams, AClientThatLeavesBeforeTheFirstByteIsSeen) {
  WaitingEngine engine("");
  TestRelay relay(To(engine.port()), Loops(GetParam()));
  {
    RawSocket socket = relay.Connect();
    socket.Send(kPost);
    engine.WaitForRequest();
  }
  EXPECT_TRUE(engine.LeftWithin(milliseconds(1000)));
}

TEST_P(Streams, AClientThatLeavesBehindPipelinedBytesIsSeen) {
  for (const size_t bytes : {size_t{100}, size_t{5'000}, size_t{200'000}}) {
    WaitingEngine engine(std::string(kSseHead) + "9\r\ndata: 1\n\n\r\n");
    TestRelay relay(To(engine.port()), Loops(GetParam()));
    {
      RawSocket socket = relay.Connect();
      socket.Send(kGet);
      socket.ReadUntil("data: 1");
      socket.Send(std::string(bytes, 'p'));
    }
    EXPECT_TRUE(engine.LeftWithin(milliseconds(1000))) << bytes;
  }
}

TEST(Stream, AHalfCloseCountsAsGoneUnlessItIsAllowed) {
  WaitingEngine engine(std::string(kSseHead) + "9\r\ndata: 1\n\n\r\n");
  TestRelay relay(To(engine.port()));
  RawSocket socket = relay.Connect();
  socket.Send(kGet);
  socket.ReadUntil("data: 1");
  socket.ShutdownSend();
  EXPECT_TRUE(engine.LeftWithin(milliseconds(1000)));

  ScriptedPeer patient(1, [](RawSocket& peer, int) {
    ReadRequest(peer);
    std::this_thread::sleep_for(milliseconds(100));
    peer.Send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate");
    ReadRequest(peer);
  });
  RelayOptions options;
  options.allow_half_close = true;
  TestRelay allowing(To(patient.port()), options);
  RawSocket half = allowing.Connect();
  half.Send(kGet);
  half.ShutdownSend();
  EXPECT_EQ(BodyOf(half.ReadToEnd()), "late");
}

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define LLMD_TEST_SANITIZED 1
#endif
#endif
#ifdef LLMD_TEST_SANITIZED
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

size_t ResidentBytes() {
  std::FILE* file = std::fopen("/proc/self/statm", "r");
  long total = 0, resident = 0;
  EXPECT_EQ(std::fscanf(file, "%ld %ld", &total, &resident), 2);
  std::fclose(file);
  return static_cast<size_t>(resident) * 4096;
}

TEST_P(Streams, ASlowReaderHoldsTheEngineBack) {
  constexpr size_t kTotal = 40 << 20;
  std::atomic<size_t> sent{0};
  ScriptedPeer peer(1, [&](RawSocket& socket, int) {
    ReadRequest(socket);
    socket.Send("HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(kTotal) + "\r\n\r\n");
    const std::string piece(1 << 16, 'x');
    while (sent < kTotal && socket.Send(piece)) sent += piece.size();
    ReadRequest(socket);
  });
  TestRelay relay(To(peer.port()), Loops(GetParam()));
  const size_t before = ResidentBytes();
  RawSocket socket = relay.Connect(/*receive_buffer_bytes=*/8192);
  socket.Send(kGetClose);
  std::this_thread::sleep_for(milliseconds(500));
  const size_t stalled = sent;
  EXPECT_LT(stalled, kTotal / 2);
  if (!kSanitized) EXPECT_LT(ResidentBytes(), before + (8 << 20));
  std::this_thread::sleep_for(milliseconds(200));
  EXPECT_EQ(sent, stalled);
  const std::string seen = socket.ReadToEnd();
  EXPECT_EQ(seen.size() - seen.find("\r\n\r\n") - 4, kTotal);
}

TEST(Stream, ASlowReaderIsNotTheEnginesSilence) {
  ScriptedPeer peer(1, [&](RawSocket& socket, int) {
    ReadRequest(socket);
    socket.Send("HTTP/1.1 200 OK\r\nContent-Length: 8000000\r\n\r\n" + std::string(8'000'000, 'x'));
    ReadRequest(socket);
  });
  Hooks hooks = To(peer.port());
  hooks.options.gap_timeout = milliseconds(150);
  TestRelay relay(hooks);
  RawSocket socket = relay.Connect(8192);
  socket.Send(kGetClose);
  std::this_thread::sleep_for(milliseconds(500));
  EXPECT_EQ(BodyOf(socket.ReadToEnd()).size(), 8'000'000U);
}

TEST(Stream, AnIdleOneHoldsNoBuffers) {
  constexpr int kStreams = 200;
  std::vector<RawSocket> engines;
  ScriptedPeer peer(kStreams, [&](RawSocket& socket, int) {
    ReadRequest(socket);
    socket.Send(std::string(kSseHead) + "9\r\ndata: 1\n\n\r\n");
    engines.push_back(std::move(socket));
  });
  TestRelay relay(To(peer.port()));
  std::vector<RawSocket> clients;
  size_t after_first = 0;
  for (int i = 0; i < kStreams; ++i) {
    clients.push_back(relay.Connect());
    clients.back().Send("POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 5000\r\n\r\n" +
                        std::string(5000, 'b'));
    clients.back().ReadUntil("data: 1");
    if (i == 49) after_first = ResidentBytes();
  }
  // Sanitizers keep what is freed.
  if (!kSanitized) EXPECT_LT(ResidentBytes(), after_first + 150 * 12 * 1024);
  clients.clear();
  relay.journal.WaitForEnds(kStreams);
}

TEST(Stream, EndsAtDrainAndNewcomersAreRefused) {
  std::promise<void> next;
  ScriptedPeer peer(1, [&](RawSocket& socket, int) {
    ReadRequest(socket);
    socket.Send(std::string(kSseHead) + "9\r\ndata: 1\n\n\r\n");
    next.get_future().wait();
    socket.Send("9\r\ndata: 2\n\n\r\n0\r\n\r\n");
    ReadRequest(socket);
  });
  TestRelay relay(To(peer.port()), Loops(2));
  RawSocket idle = relay.Connect();
  idle.Send("GET / HTTP/1.1\r\n\r\n");  // refused: its connection closes by itself
  RawSocket socket = relay.Connect();
  socket.Send(kGet);
  std::string seen = socket.ReadUntil("data: 1");
  std::thread stopper([&] { relay.relay->Stop(std::chrono::seconds(10)); });
  std::this_thread::sleep_for(milliseconds(100));
  EXPECT_FALSE(relay.Connect().connected());
  next.set_value();
  seen += socket.ReadToEnd();
  stopper.join();
  EXPECT_EQ(BodyOf(seen), "data: 1\n\ndata: 2\n\n");
}

TEST(Stream, IsCutAtTheDrainLimit) {
  WaitingEngine engine(std::string(kSseHead) + "9\r\ndata: 1\n\n\r\n");
  TestRelay relay(To(engine.port()));
  RawSocket socket = relay.Connect();
  socket.Send(kGet);
  socket.ReadUntil("data: 1");
  relay.relay->Stop(milliseconds(100));
  socket.ReadToEnd();
  EXPECT_TRUE(engine.LeftWithin(milliseconds(1000)));
  EXPECT_EQ(relay.journal.outcomes().size(), 1U);
}

TEST(Heartbeat, IsACommentBetweenEventsWhileTheEngineIsSilent) {
  std::promise<void> next;
  ScriptedPeer peer(1, [&](RawSocket& socket, int) {
    ReadRequest(socket);
    socket.Send(std::string(kSseHead) + "9\r\ndata: 1\n\n\r\n");
    next.get_future().wait();
    socket.Send("9\r\ndata: 2\n\n\r\n0\r\n\r\n");
    ReadRequest(socket);
  });
  RelayOptions options;
  options.sse_heartbeat = milliseconds(40);
  TestRelay relay(To(peer.port()), options);
  RawSocket socket = relay.Connect();
  socket.Send(kGetClose);
  std::string seen = socket.ReadUntil("data: 1\n\n\r\n3\r\n:\n\n\r\n3\r\n:\n\n");
  next.set_value();
  seen += socket.ReadToEnd();
  std::string events = BodyOf(seen);
  for (size_t at = events.find(":\n\n"); at != std::string::npos; at = events.find(":\n\n"))
    events.erase(at, 3);
  EXPECT_EQ(events, "data: 1\n\ndata: 2\n\n");
}

TEST(Heartbeat, NeverStandsWithinAnEventNorInOtherAnswers) {
  for (const std::string head :
       {std::string(kSseHead), std::string("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        std::string("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                    "Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n")}) {
    const std::string before = head == kSseHead ? "data: 1\n" : "data: 1\n\n";
    ScriptedPeer peer(1, [&](RawSocket& socket, int) {
      ReadRequest(socket);
      socket.Send(head + std::to_string(before.size()) + "\r\n" + before + "\r\n");
      std::this_thread::sleep_for(milliseconds(200));
      socket.Send("9\r\ndata: 2\n\n\r\n0\r\n\r\n");
      ReadRequest(socket);
    });
    RelayOptions options;
    options.sse_heartbeat = milliseconds(20);
    TestRelay relay(To(peer.port()), options);
    EXPECT_EQ(BodyOf(relay.Ask(kGetClose)), before + "data: 2\n\n");
  }
}

}  // namespace
}  // namespace llmd::relay::testing
