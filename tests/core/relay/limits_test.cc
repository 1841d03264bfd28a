// Bounds: of time, of bytes, of connections.
#include <future>

#include "fixture.h"

namespace llmd::relay::testing {
namespace {

using std::chrono::milliseconds;

RelayOptions Quick() {
  RelayOptions options;
  options.server.head_timeout = milliseconds(150);
  options.server.body_timeout = milliseconds(150);
  options.server.idle_timeout = milliseconds(150);
  return options;
}

std::string StatusOf(RawSocket& socket) {
  return socket.ReadToEnd().substr(0, 12);
}

TEST(Limits, AHeadThatTricklesIsRefused) {
  TestRelay relay(EchoHooks(), Quick());
  RawSocket socket = relay.Connect();
  const std::string_view head = "GET / HTTP/1.1\r\nHost: h\r\nX-Slow: aaaaaaaaaaaaaaaaaaaaaaaaa";
  const auto begun = std::chrono::steady_clock::now();
  for (size_t i = 0; i < head.size(); ++i) {
    if (!socket.Send(head.substr(i, 1))) break;
    std::this_thread::sleep_for(milliseconds(20));
    if (std::chrono::steady_clock::now() - begun > milliseconds(400)) break;
  }
  EXPECT_EQ(StatusOf(socket), "HTTP/1.1 408");
  ASSERT_EQ(relay.journal.WaitForEnds(1).size(), 1U);
  EXPECT_TRUE(relay.journal.outcomes()[0].refused);
}

TEST(Limits, ASilentBodyIsRefused) {
  TestRelay relay(EchoHooks(), Quick());
  RawSocket socket = relay.Connect();
  socket.Send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nabc");
  EXPECT_EQ(StatusOf(socket), "HTTP/1.1 408");
}

TEST(Limits, ABodyThatTricklesIsRefused) {
  RelayOptions options;
  options.min_body_bytes_per_s = 1000;
  options.body_grace = milliseconds(200);
  TestRelay relay(EchoHooks(), options);
  RawSocket socket = relay.Connect();
  socket.Send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n");
  const auto begun = std::chrono::steady_clock::now();
  while (socket.Send("x") && std::chrono::steady_clock::now() - begun < milliseconds(600))
    std::this_thread::sleep_for(milliseconds(20));
  EXPECT_EQ(StatusOf(socket), "HTTP/1.1 408");
}

TEST(Limits, ABodyThatIsFastEnoughIsNot) {
  RelayOptions options;
  options.min_body_bytes_per_s = 1000;
  options.body_grace = milliseconds(200);
  TestRelay relay(EchoHooks(), options);
  RawSocket socket = relay.Connect();
  socket.Send("POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 20000\r\n\r\n");
  for (int i = 0; i < 20; ++i) {
    socket.Send(std::string(1000, 'x'));
    std::this_thread::sleep_for(milliseconds(25));
  }
  EXPECT_EQ(StatusOf(socket), "HTTP/1.1 200");
}

TEST(Limits, AnIdleConnectionCloses) {
  TestRelay relay(EchoHooks(), Quick());
  RawSocket socket = relay.Connect();
  socket.Send(kGet);
  EXPECT_THAT(socket.ReadToEnd(), ::testing::StartsWith("HTTP/1.1 200"));
  EXPECT_EQ(relay.journal.outcomes().size(), 1U);
}

TEST(Limits, AClientThatTakesNothingIsLeft) {
  RelayOptions options;
  options.server.write_timeout = milliseconds(200);
  Hooks hooks;
  hooks.on_request = [](Call& call) { call.Answer(200, {}, std::string(20'000'000, 'x')); };
  TestRelay relay(hooks, options);
  RawSocket socket = relay.Connect(4096);
  socket.Send(kGet);
  const auto ends = relay.journal.WaitForEnds(1);
  ASSERT_EQ(ends.size(), 1U);
  EXPECT_TRUE(ends[0].client_gone);
  EXPECT_FALSE(ends[0].whole);
}

TEST(Limits, BodiesInMemoryAreBoundedTogether) {
  RelayOptions options;
  options.max_body_bytes_in_flight = 1'000'000;
  TestRelay relay(EchoHooks(), options);
  const std::string head =
      "POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 400000\r\n\r\n";
  std::vector<RawSocket> held;
  for (int i = 0; i < 2; ++i) {
    held.push_back(relay.Connect());
    held.back().Send(head + std::string(399'999, 'x'));
  }
  std::this_thread::sleep_for(milliseconds(100));
  RawSocket third = relay.Connect();
  third.Send(head + std::string(399'999, 'x'));
  EXPECT_EQ(StatusOf(third), "HTTP/1.1 503");
  // Those that were there go on; what they held is free again.
  for (RawSocket& socket : held) {
    socket.Send("x");
    EXPECT_EQ(StatusOf(socket), "HTTP/1.1 200");
  }
  RawSocket fourth = relay.Connect();
  fourth.Send(head + std::string(400'000, 'x'));
  EXPECT_EQ(StatusOf(fourth), "HTTP/1.1 200");
}

TEST(Limits, AChunkedBodyOverTheLimitIsRefused) {
  RelayOptions options;
  options.server.max_body_bytes = 1000;
  TestRelay relay(EchoHooks(), options);
  RawSocket socket = relay.Connect();
  socket.Send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n" +
              std::string(1001, 'x') + "\r\n0\r\n\r\n");
  EXPECT_EQ(StatusOf(socket), "HTTP/1.1 413");
}

class ConnectionLimit : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Loops, ConnectionLimit, ::testing::Values(1, 4));

// Many come while no loop gets to them.
TEST_P(ConnectionLimit, WhoCameFirstIsServed) {
  RelayOptions options = Loops(GetParam());
  options.server.max_connections = 14;
  Hooks hooks = EchoHooks();
  const auto echo = hooks.on_request;
  std::atomic<int> blocked{0};
  hooks.on_request = [&](Call& call) {
    if (call.request().target == "/block") {
      ++blocked;
      std::this_thread::sleep_for(milliseconds(300));
    }
    echo(call);
  };
  TestRelay relay(hooks, options);
  std::vector<RawSocket> first, sockets;
  for (int i = 0; i < GetParam(); ++i) first.push_back(relay.Connect());
  for (RawSocket& socket : first) socket.Send("GET /block HTTP/1.1\r\nHost: h\r\n\r\n");
  while (blocked < GetParam()) std::this_thread::sleep_for(milliseconds(1));
  for (int i = 0; i < 60; ++i) {
    sockets.push_back(relay.Connect());
    sockets.back().Send(kGet);
  }
  int served = 0;
  for (RawSocket& socket : sockets)
    served += socket.ReadUntil("\r\n\r\n").starts_with("HTTP/1.1 200");
  EXPECT_EQ(served, 14 - GetParam());
}

TEST_P(ConnectionLimit, OneTooManyIsToldSo) {
  RelayOptions options = Loops(GetParam());
  options.server.max_connections = 2;
  TestRelay relay(EchoHooks(), options);
  std::vector<RawSocket> held;
  for (int i = 0; i < 2; ++i) {
    held.push_back(relay.Connect());
    held.back().Send(kGet);
    held.back().ReadUntil("GET /x ");
  }
  RawSocket third = relay.Connect();
  const std::string seen = third.ReadToEnd();
  EXPECT_THAT(seen, ::testing::StartsWith("HTTP/1.1 503"));
  EXPECT_THAT(relay.journal.lines(), ::testing::Contains("refused 503"));
  held.clear();
  for (int i = 0; i < 200 && relay.relay->open_connections() > 0; ++i)
    std::this_thread::sleep_for(milliseconds(10));
  RawSocket again = relay.Connect();
  again.Send(kGetClose);
  EXPECT_EQ(StatusOf(again), "HTTP/1.1 200");
}

TEST(Limits, APortInUseIsNamed) {
  TestRelay relay{EchoHooks()};
  RelayOptions options;
  options.server.port = relay.relay->port();
  Journal journal;
  const auto second = Relay::Create(
      options, [&](Loop& loop) { return std::make_unique<HookPolicy>(relay.hooks, journal, loop); },
      Logger());
  EXPECT_EQ(second.status().code(), StatusCode::kAlreadyExists);
  EXPECT_THAT(second.status().message(), ::testing::HasSubstr(std::to_string(options.server.port)));
  options.server.host = "nowhere";
  EXPECT_EQ(Relay::Create(options, nullptr, Logger()).status().code(),
            StatusCode::kInvalidArgument);
  options.loops = 0;
  EXPECT_EQ(Relay::Create(options, nullptr, Logger()).status().code(),
            StatusCode::kInvalidArgument);
}

TEST(Limits, IdleUpstreamsCloseInTime) {
  ScriptedPeer engine(1, [](RawSocket& socket, int) {
    ReadRequest(socket);
    socket.Send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    ReadRequest(socket);
  });
  RelayOptions options;
  options.upstream_idle_timeout = milliseconds(100);
  TestRelay relay(To(engine.port()), options);
  relay.Ask(kGetClose);
  EXPECT_EQ(relay.Sum().upstream_idle, 1U);
  for (int i = 0; i < 200 && relay.Sum().upstream_open > 0; ++i)
    std::this_thread::sleep_for(milliseconds(5));
  EXPECT_EQ(relay.Sum().upstream_open, 0U);
  EXPECT_EQ(relay.Sum().upstream_idle, 0U);
}

TEST(Limits, IdleUpstreamsAreBounded) {
  std::atomic<int> waiting{0};
  std::vector<std::thread> engines;
  auto engine = std::make_unique<ScriptedPeer>(3, [&](RawSocket& socket, int) {
    engines.emplace_back([&waiting, own = std::make_shared<RawSocket>(std::move(socket))] {
      ReadRequest(*own);
      ++waiting;
      while (waiting < 3) std::this_thread::yield();
      own->Send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
      ReadRequest(*own);
    });
  });
  RelayOptions options;
  options.max_idle_per_upstream = 2;
  {
    TestRelay relay(To(engine->port()), options);
    std::vector<RawSocket> clients;
    for (int i = 0; i < 3; ++i) {
      clients.push_back(relay.Connect());
      clients.back().Send(kGet);
    }
    for (RawSocket& client : clients) client.ReadUntil("ok");
    relay.journal.WaitForEnds(3);
    EXPECT_EQ(relay.Sum().upstream_idle, 2U);
  }
  engine.reset();  // its thread fills the list
  for (std::thread& each : engines) each.join();
}

TEST(Limits, BodiesThatSomebodyStillReadsCount) {
  RelayOptions options;
  options.max_body_bytes_in_flight = 1'000'000;
  std::promise<CallRef> retained;
  Hooks hooks;
  bool kept = false;
  hooks.on_request = [&](Call& call) {
    if (kept) call.Answer(200, {}, "taken");
  };
  hooks.on_end = [&](Call& call) {
    if (std::exchange(kept, true)) return;
    call.Retain();
    retained.set_value(call.ref());
  };
  TestRelay relay(hooks, options);
  const std::string post =
      "POST /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 800000\r\n\r\n" +
      std::string(800'000, 'b');
  {
    RawSocket leaves = relay.Connect();
    leaves.Send(post);
  }
  const CallRef ref = retained.get_future().get();
  EXPECT_THAT(relay.Ask(post), ::testing::StartsWith("HTTP/1.1 503 "));
  std::promise<void> gone;
  ref.Post([&gone](Call& call) {
    call.LetGo();
    gone.set_value();
  });
  gone.get_future().wait();
  EXPECT_THAT(relay.Ask(post), ::testing::EndsWith("taken"));
}

}  // namespace
}  // namespace llmd::relay::testing
