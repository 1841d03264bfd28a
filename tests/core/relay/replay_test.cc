// Connections that were closed while they were idle, and requests that were taken and then dropped:
// only the first may be sent again unasked. And upstreams that speak before they are asked.
#include <future>

#include "fixture.h"

namespace llmd::relay::testing {
namespace {

using std::chrono::milliseconds;
constexpr std::string_view kOk = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

// A relay whose loop stands still before the n-th request, from 1 on, is sent, until it is let go.
struct HeldRelay {
  HeldRelay(uint16_t port, int held) {
    Hooks hooks = To(port);
    hooks.on_request = [this, held, target = hooks.target](Call& call) {
      if (++requests == held) {
        arrived.set_value();
        go.get_future().wait();
      }
      SendOptions options;
      options.target = target;
      call.Send(options);
    };
    relay = std::make_unique<TestRelay>(hooks);
  }
  int requests = 0;
  std::promise<void> arrived, go;
  std::unique_ptr<TestRelay> relay;
};

// The connection ends while the loop, which does not know it yet, is about to use it.
TEST(Replay, IsForARequestThatNeverReachedTheUpstream) {
  for (const bool reset : {false, true}) {
    std::promise<void> end, ended;
    std::vector<std::string> seen;
    ScriptedPeer peer(2, [&](RawSocket& socket, int n) {
      seen.push_back(ReadRequest(socket));
      socket.Send(kOk);
      if (n > 0) return void(ReadRequest(socket));
      end.get_future().wait();
      reset ? socket.Reset() : socket.Close();
      ended.set_value();
    });
    HeldRelay held(peer.port(), 2);
    RawSocket socket = held.relay->Connect();
    socket.Send(kPost);
    EXPECT_THAT(socket.ReadUntil("ok"), ::testing::HasSubstr("200 OK"));
    socket.Send(kPost);
    held.arrived.get_future().wait();
    end.set_value();
    ended.get_future().wait();
    held.go.set_value();
    EXPECT_THAT(socket.ReadUntil("ok"), ::testing::HasSubstr("200 OK")) << reset;
    EXPECT_EQ(held.relay->Sum().replays, 1U);
    EXPECT_THAT(held.relay->journal.lines(), ::testing::IsEmpty());
    ASSERT_EQ(seen.size(), 2U);
    EXPECT_THAT(seen[1], ::testing::EndsWith("{}"));
  }
}

TEST(Replay, IsNotForARequestThatWasTakenAndThenDropped) {
  for (const bool reset : {false, true}) {
    std::atomic<int> deliveries{0};
    ScriptedPeer peer(2, [&](RawSocket& socket, int) {
      ReadRequest(socket);
      socket.Send(kOk);
      if (ReadRequest(socket).empty()) return;
      ++deliveries;
      std::this_thread::sleep_for(milliseconds(60));  // it works on it
      reset ? socket.Reset() : socket.Close();
    });
    {
      TestRelay relay(To(peer.port()));
      RawSocket socket = relay.Connect();
      socket.Send(kPost);
      socket.ReadUntil("ok");
      socket.Send(kPost);
      EXPECT_THAT(socket.ReadUntil("reset"), ::testing::HasSubstr(" 502 "));
      EXPECT_EQ(relay.Sum().replays, 0U);
      EXPECT_THAT(relay.journal.lines(), ::testing::ElementsAre("failure reset"));
      EXPECT_EQ(deliveries, 1);
    }
    RawSocket::Connect(peer.port());  // lets the peer end
  }
}

TEST(Replay, IsDoneOnceACall) {
  std::promise<void> end, ended;
  std::vector<RawSocket> kept;
  ScriptedPeer peer(4, [&](RawSocket& socket, int n) {
    if (n > 2) return;
    ReadRequest(socket);
    if (n == 2) return socket.Reset();  // the replay
    kept.push_back(std::move(socket));
    if (n == 0) return;
    for (RawSocket& each : kept) each.Send(kOk);
    end.get_future().wait();
    for (RawSocket& each : kept) each.Reset();
    ended.set_value();
  });
  HeldRelay held(peer.port(), 3);
  int failures = 0;
  held.relay->hooks.on_failure = [&](Call& call, relay::Failure, std::string_view) {
    if (++failures == 2) return call.Answer(502, {}, "enough");
    SendOptions options;
    options.target = held.relay->hooks.target;
    call.Send(options);
  };
  RawSocket one = held.relay->Connect(), two = held.relay->Connect();
  one.Send(kPost);
  two.Send(kPost);
  one.ReadUntil("ok");
  two.ReadUntil("ok");
  one.Send(kPost);
  held.arrived.get_future().wait();
  end.set_value();
  ended.get_future().wait();
  held.go.set_value();
  EXPECT_THAT(one.ReadUntil("enough"), ::testing::HasSubstr(" 502 "));
  EXPECT_EQ(held.relay->Sum().replays, 1U);
  RawSocket::Connect(peer.port());
}

// The rest of a body that an early answer made needless must not stand in front of another request.
TEST(Early, AnswersEndTheUseOfTheirConnection) {
  std::promise<void> answered;
  std::atomic<int> connections{0};
  ScriptedPeer peer(2, [&](RawSocket& socket, int n) {
    ++connections;
    if (n > 0) {
      ReadRequest(socket);
      socket.Send(kOk);
      return void(ReadRequest(socket));
    }
    std::string seen;
    socket.Receive(&seen);
    socket.Send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nea");
    answered.get_future().wait();
    // Room for more of the body, of which there is no more.
    while (seen.size() < 200'000 && socket.Receive(&seen)) {
    }
    std::this_thread::sleep_for(milliseconds(50));
    socket.Send("rl");
    socket.ReadToEnd();
  });
  TestRelay relay(To(peer.port()));
  RawSocket socket = relay.Connect();
  constexpr size_t kBytes = 20'000'000;
  socket.Send("POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: " + std::to_string(kBytes) +
              "\r\n\r\n" + std::string(kBytes, 'q'));
  socket.ReadUntil("ea");
  answered.set_value();
  socket.ReadUntil("rl");
  socket.Send(kPost);
  EXPECT_THAT(socket.ReadUntil("ok"), ::testing::HasSubstr("200 OK"));
  EXPECT_EQ(connections, 2);
}

// Its bytes may be there when the connect is, with no event of their own.
TEST(Early, AnUpstreamThatSpeaksFirstIsHeard) {
  constexpr int kTimes = 50;
  std::vector<RawSocket> kept;
  ScriptedPeer peer(kTimes, [&](RawSocket& socket, int) {
    socket.Send("HTTP/1.1 503 Busy\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbusy");
    kept.push_back(std::move(socket));
  });
  Hooks hooks = To(peer.port());
  hooks.options.first_byte_timeout = std::chrono::seconds(5);
  hooks.on_request = [&hooks](Call& call) {
    SendOptions options = hooks.options;
    options.target = hooks.target;
    call.Send(options);
    // It connects and speaks before the loop looks.
    std::this_thread::sleep_for(milliseconds(5));
  };
  TestRelay relay(hooks);
  for (int i = 0; i < kTimes; ++i) ASSERT_EQ(BodyOf(relay.Ask(kGetClose)), "busy") << i;
}

}  // namespace
}  // namespace llmd::relay::testing
