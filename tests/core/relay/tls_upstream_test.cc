// TLS of the relay towards its upstreams.
#include <openssl/err.h>

#include <future>
#include <mutex>
#include <thread>

#include "tls_peer.h"

namespace llmd::relay::testing {
namespace {

using http::testing::MakePair;
using ::testing::HasSubstr;

constexpr char kLoopback[] = "IP:127.0.0.1";
constexpr std::string_view kEvents =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    "9\r\ndata: 1\n\n\r\n";

// A provider whose context may be replaced.
class Material {
 public:
  explicit Material(const http::TlsClientOptions& options) { Set(options); }
  void Set(const http::TlsClientOptions& options) {
    const std::lock_guard lock(mutex_);
    context_ = *http::TlsContext::CreateClient(options);
  }
  http::TlsProvider provider() {
    return [this] {
      const std::lock_guard lock(mutex_);
      return context_;
    };
  }

 private:
  std::mutex mutex_;
  std::shared_ptr<const http::TlsContext> context_;
};

RelayOptions Asking(Material& material, int loops = 1, std::string host = {}) {
  RelayOptions options = Loops(loops);
  options.upstream_tls = material.provider();
  options.upstream_tls_host = std::move(host);
  return options;
}

void AnswerAll(TlsEnd& end, RawSocket&, int) {
  while (!ReadRequest(end).empty()) end.Send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
}

class TlsUpstream : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Loops, TlsUpstream, ::testing::Values(1, 4));

TEST_P(TlsUpstream, CarriesBodiesBothWaysOnOneConnection) {
  RelayOptions secure = Loops(1);
  const auto context = *http::TlsContext::Create(MakePair());
  secure.server.tls = [context] { return context; };
  TestRelay engine(EchoHooks(), secure);
  Hooks hooks = To(engine.relay->port());
  hooks.options.tls = std::make_shared<UpstreamTls>(
      UpstreamTls{*http::TlsContext::CreateClient({.verify = false}), "127.0.0.1"});
  TestRelay relay(hooks, Loops(GetParam()));
  RawSocket socket = relay.Connect();
  for (int i = 0; i < 3; ++i) {
    socket.Send("POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 100001\r\n\r\n" +
                std::string(100'000, 'b') + "e");
    EXPECT_THAT(socket.ReadUntil("be"), HasSubstr("POST /p bbb"));
  }
  EXPECT_EQ(relay.Sum().upstream_connects, 1U);
}

TEST_P(TlsUpstream, IsTheRelaysForLegsThatNameNone) {
  const http::TlsOptions pair = MakePair(kLoopback);
  TlsPeer engine(pair, 1, AnswerAll);
  Material material({.ca = pair.chain});
  TestRelay relay(To(engine.port()), Asking(material, GetParam()));
  EXPECT_EQ(BodyOf(relay.Ask(kGetClose)), "ok");
}

// What the relay makes of an engine that shows `shown`, when it believes `believed`.
std::string Verdict(const http::TlsOptions& shown, const std::string& believed,
                    const std::string& host = {}) {
  TlsPeer engine(shown, 1, AnswerAll);
  Material material({.ca = believed});
  TestRelay relay(To(engine.port()), Asking(material, 1, host));
  std::string out = BodyOf(relay.Ask(kGetClose));
  ERR_clear_error();
  return out;
}

TEST(TlsUpstreamNames, AreThoseOfTheCertificate) {
  const http::TlsOptions by_address = MakePair(kLoopback), by_name = MakePair("DNS:engine");
  EXPECT_EQ(Verdict(by_address, by_address.chain), "ok");
  EXPECT_EQ(Verdict(by_name, by_name.chain), "refused");
  EXPECT_EQ(Verdict(by_name, by_name.chain, "engine"), "ok");
  EXPECT_EQ(Verdict(by_address, by_address.chain, "engine"), "refused");
}

TEST(TlsUpstreamNames, DoNotHelpStrangersAndTheExpired) {
  const http::TlsOptions pair = MakePair(kLoopback), expired = MakePair(kLoopback, -60);
  EXPECT_EQ(Verdict(pair, MakePair(kLoopback).chain), "refused");
  EXPECT_EQ(Verdict(pair, ""), "refused") << "the system knows it not";
  EXPECT_EQ(Verdict(expired, expired.chain), "refused");
}

TEST(TlsUpstreamHandshake, ThatHangsIsAFailureToConnect) {
  ScriptedPeer engine(1, [](RawSocket& socket, int) { socket.ReadToEnd(); });
  Material material({.verify = false});
  Hooks hooks = To(engine.port());
  hooks.options.connect_timeout = std::chrono::milliseconds(100);
  TestRelay relay(hooks, Asking(material));
  EXPECT_EQ(BodyOf(relay.Ask(kGetClose)), "refused");
}

TEST(TlsUpstreamHandshake, WithClearTextIsAFailureToConnect) {
  ScriptedPeer engine(1, [](RawSocket& socket, int) {
    std::string seen;
    socket.Receive(&seen);
    socket.Send("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
  });
  Material material({.verify = false});
  TestRelay relay(To(engine.port()), Asking(material));
  EXPECT_EQ(BodyOf(relay.Ask(kGetClose)), "refused");
}

TEST(TlsUpstreamMutual, ShowsOurCertificate) {
  const http::TlsOptions pair = MakePair(kLoopback), ours = MakePair();
  for (const bool shown : {true, false}) {
    TlsPeer engine(pair, 1, AnswerAll, &ours);
    Material material(shown ? http::TlsClientOptions{true, pair.chain, ours.chain, ours.key}
                            : http::TlsClientOptions{true, pair.chain});
    TestRelay relay(To(engine.port()), Asking(material));
    EXPECT_EQ(BodyOf(relay.Ask(kGetClose)), shown ? "ok" : "reset");
  }
}

// How an answer ends for a client, when the engine ends it with or without a close_notify.
struct Ending {
  std::string body;
  Outcome outcome;
};
Ending EndOf(std::string_view answer, bool notify) {
  const http::TlsOptions pair = MakePair(kLoopback);
  TlsPeer engine(pair, 1, [&](TlsEnd& end, RawSocket& socket, int) {
    ReadRequest(end);
    end.Send(answer);
    if (notify) SSL_shutdown(end.ssl());
    socket.ShutdownSend();
    socket.ReadToEnd();
  });
  Material material({.ca = pair.chain});
  TestRelay relay(To(engine.port()), Asking(material));
  const std::string body = BodyOf(relay.Ask(kGetClose));
  return {body, relay.journal.WaitForEnds(1).at(0)};
}

TEST(TlsUpstreamEnd, OfTheTransportAloneIsACut) {
  constexpr std::string_view kUntilClose = "HTTP/1.1 200 OK\r\n\r\nabc";
  const Ending whole = EndOf(kUntilClose, true);
  EXPECT_EQ(whole.body, "abc");
  EXPECT_TRUE(whole.outcome.whole);
  const Ending cut = EndOf(kUntilClose, false);
  EXPECT_EQ(cut.body, "abc<cut>");
  EXPECT_TRUE(cut.outcome.cut);
  EXPECT_FALSE(cut.outcome.whole);
}

TEST(TlsUpstreamEnd, WithinAFramingIsACutEitherWay) {
  for (const bool notify : {true, false}) {
    EXPECT_TRUE(EndOf("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", notify).outcome.cut);
    EXPECT_TRUE(EndOf("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", notify)
                    .outcome.cut);
  }
}

TEST(TlsUpstreamReload, LeavesWhatRunsAndRetiresWhatIsKept) {
  const http::TlsOptions pair = MakePair(kLoopback);
  std::promise<void> go, retired;
  std::atomic<int> connections{0};
  const auto serve = [&](TlsEnd& end, RawSocket& socket, int n) {
    const bool streams = ReadRequest(end).find("/stream") != std::string::npos;
    ++connections;
    end.Send(streams ? kEvents : "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
  };
  // Each connection is served by a thread of its own, since two are open at a time.
  SSL_CTX* context = SSL_CTX_new(TLS_server_method());
  Show(context, pair);
  std::vector<std::thread> threads;
  ScriptedPeer engine(3, [&](RawSocket& accepted, int n) {
    threads.emplace_back([&, n, socket = std::move(accepted)]() mutable {
      TlsEnd end(context, socket.fd());
      ASSERT_EQ(SSL_accept(end.ssl()), 1);
      serve(end, socket, n);
      if (n == 0) {
        go.get_future().wait();
        end.Send("9\r\ndata: 2\n\n\r\n0\r\n\r\n");
      }
      end.ReadToEnd();
      if (n == 1) retired.set_value();
    });
  });
  Material material({.ca = pair.chain});
  {
    std::atomic<int> ticks{0};
    Hooks hooks = To(engine.port());
    hooks.on_tick = [&](Loop&) { ++ticks; };
    TestRelay relay(hooks, Asking(material));
    RawSocket stream = relay.Connect(), other = relay.Connect();
    stream.Send("GET /stream HTTP/1.1\r\nHost: h\r\n\r\n");
    stream.ReadUntil("data: 1");
    other.Send(kGet);
    other.ReadUntil("ok");
    EXPECT_EQ(connections, 2);
    EXPECT_EQ(relay.Sum().upstream_idle, 1U);

    material.Set({.ca = pair.chain});
    // A loop looks at it in each tick.
    for (const int now = ticks; ticks < now + 2;)
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    other.Send(kGet);
    other.ReadUntil("ok");
    EXPECT_EQ(connections, 3);
    go.set_value();
    EXPECT_THAT(stream.ReadUntil("0\r\n\r\n"), HasSubstr("data: 2"));
    // With the stream the last holder of the old material has gone.
    retired.get_future().wait();
    EXPECT_EQ(relay.Sum().upstream_connects, 3U);
    for (int i = 0; i < 1000 && relay.Sum().upstream_idle > 1; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    EXPECT_EQ(relay.Sum().upstream_idle, 1U) << "the one of the new material";
  }
  for (std::thread& each : threads) each.join();
  SSL_CTX_free(context);
}

}  // namespace
}  // namespace llmd::relay::testing
