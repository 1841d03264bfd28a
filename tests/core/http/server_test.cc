// The exchange as handlers see it: disconnects, back-pressure, failures, drain.
#include "llmd/http/server.h"

#include <gtest/gtest.h>

#include <atomic>
#include <stdexcept>
#include <utility>

#include "fixture.h"

namespace llmd::http {
namespace {
using testing::Echo;
using testing::Latch;
using testing::RawSocket;
using testing::TestServer;
using testing::Text;

const char kGet[] = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

TEST(Server, NamesThePortThatIsInUse) {
  TestServer first(Echo);
  ServerOptions options;
  options.port = first.server->port();
  const auto second = Server::Create(*first.runtime, options, Echo, Logger());
  EXPECT_EQ(second.status().code(), StatusCode::kAlreadyExists);
  EXPECT_NE(second.status().message().find("127.0.0.1:" + std::to_string(options.port)),
            std::string::npos);
}

TEST(Server, RefusesAHostThatIsNoAddress) {
  auto runtime = *Runtime::Create(1);
  ServerOptions options;
  options.host = "no such host";
  EXPECT_EQ(Server::Create(*runtime, options, Echo, Logger()).status().code(),
            StatusCode::kInvalidArgument);
}

Task<void> Silent(Exchange&) {
  co_return;
}
Task<void> Throws(Exchange&) {
  throw std::runtime_error("boom");
  co_return;
}

TEST(Server, Answers500ForAHandlerThatDoesNot) {
  for (auto handler : {Silent, Throws}) {
    TestServer server(handler);
    RawSocket client = server.Connect();
    client.Send(kGet);
    EXPECT_TRUE(client.ReadUntil("}}").starts_with("HTTP/1.1 500"));
    client.Send(kGet);
    EXPECT_TRUE(client.ReadUntil("}}").starts_with("HTTP/1.1 500")) << "the connection goes on";
  }
}

// Waits for the client to leave without writing, and tells what it saw.
struct GoneWatcher {
  Latch<bool> entered;
  Latch<bool> gone;
  bool stream = false;
  bool read_body = true;

  Task<void> Run(Exchange& exchange) {
    if (read_body) (void)co_await exchange.ReadAll();
    if (stream) {
      ResponseHead head;
      (void)co_await exchange.Start(std::move(head));
      (void)co_await exchange.Write("data: 1\n\n");
    }
    bool left = false;
    exchange.OnClientGone([&] { left = true; });
    entered.Set(true);
    while (!left) {
      if (const Status slept = co_await SleepFor(std::chrono::milliseconds(1)); !slept.ok()) break;
    }
    const Status late = co_await exchange.Write("late");
    gone.Set(left && exchange.client_gone() && !late.ok());
  }
};

void ExpectGoneSeen(bool stream, bool read_body, std::string_view request, bool reset) {
  GoneWatcher watcher;
  watcher.stream = stream;
  watcher.read_body = read_body;
  TestServer server([&](Exchange& exchange) { return watcher.Run(exchange); });
  RawSocket client = server.Connect();
  client.Send(request);
  ASSERT_TRUE(watcher.entered.Ready());
  if (stream) client.ReadUntil("data: 1");
  reset ? client.Reset() : client.Close();
  ASSERT_TRUE(watcher.gone.Ready());
  EXPECT_TRUE(watcher.gone.Get());
}

TEST(Server, SeesTheClientLeaveWhileNothingIsWritten) {
  for (bool reset : {false, true}) {
    ExpectGoneSeen(false, true, kGet, reset);
    ExpectGoneSeen(true, true, kGet, reset);
    ExpectGoneSeen(false, true, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi", reset);
  }
}

TEST(Server, SeesTheClientLeaveBehindAnUnreadBodyAndPipelinedBytes) {
  ExpectGoneSeen(false, false, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\nhi",
                 false);
  ExpectGoneSeen(true, true, std::string(kGet) + kGet, false);
  // A body that fills the buffer to its bound leaves room for the watch.
  const std::string body(16384 - 256 - 70, 'x');
  ExpectGoneSeen(false, true,
                 "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: " + std::to_string(body.size()) +
                     "\r\n\r\n" + body,
                 false);
}

TEST(Server, FailsTheBodyOfAClientThatLeaves) {
  Latch<Status> seen;
  TestServer server([&](Exchange& exchange) -> Task<void> {
    return [](Exchange& e, Latch<Status>& latch) -> Task<void> {
      latch.Set((co_await e.ReadAll()).status());
    }(exchange, seen);
  });
  RawSocket client = server.Connect();
  client.Send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab");
  client.Close();
  ASSERT_TRUE(seen.Ready());
  EXPECT_EQ(seen.Get().code(), StatusCode::kCancelled);
}

// Writes 32 MB and counts what it got rid of.
struct Flood {
  std::atomic<size_t> written{0};
  Latch<Status> ended;
  Task<void> Run(Exchange& exchange) {
    const std::string piece(1 << 16, 'x');
    ResponseHead head;
    Status status = co_await exchange.Start(std::move(head));
    for (int i = 0; i < 512 && status.ok(); ++i) {
      status = co_await exchange.Write(piece);
      if (status.ok()) written += piece.size();
    }
    if (status.ok()) status = co_await exchange.Finish();
    ended.Set(status);
  }
};

TEST(Server, HoldsTheProducerBackForASlowReader) {
  Flood flood;
  TestServer server([&](Exchange& exchange) { return flood.Run(exchange); });
  RawSocket client = server.Connect();
  client.Send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
  std::string some;
  client.Receive(&some);
  // It cannot get further than the kernel's buffers.
  EXPECT_FALSE(flood.ended.Ready(std::chrono::milliseconds(100)));
  EXPECT_LT(flood.written.load(), size_t{24} << 20);
  const std::string all = some + client.ReadToEnd();
  ASSERT_TRUE(flood.ended.Ready());
  EXPECT_TRUE(flood.ended.Get().ok());
  EXPECT_TRUE(all.ends_with("\r\n0\r\n\r\n"));
  EXPECT_GT(all.size(), size_t{32} << 20);
}

TEST(Server, EndsABlockedWriteWhenTheClientLeaves) {
  Flood flood;
  TestServer server([&](Exchange& exchange) { return flood.Run(exchange); });
  RawSocket client = server.Connect(4096);
  client.Send(kGet);
  std::string some;
  client.Receive(&some);
  client.ShutdownSend();
  ASSERT_TRUE(flood.ended.Ready());
  EXPECT_EQ(flood.ended.Get().code(), StatusCode::kCancelled);
}

TEST(Server, CutsAReaderThatTakesNothing) {
  Flood flood;
  ServerOptions options;
  options.write_timeout = std::chrono::milliseconds(50);
  TestServer server([&](Exchange& exchange) { return flood.Run(exchange); }, options);
  RawSocket client = server.Connect(4096);
  client.Send(kGet);
  ASSERT_TRUE(flood.ended.Ready());
  EXPECT_EQ(flood.ended.Get().code(), StatusCode::kDeadlineExceeded);
}

Task<void> AbortAfterOne(Exchange& exchange) {
  ResponseHead head;
  (void)co_await exchange.Start(std::move(head));
  (void)co_await exchange.Write("one");
  exchange.Abort();
}

TEST(Server, AbortShowsAsACut) {
  TestServer server(AbortAfterOne);
  RawSocket client = server.Connect();
  client.Send(kGet);
  EXPECT_TRUE(client.ReadToEnd().ends_with("3\r\none\r\n"));
  RawSocket old = server.Connect();
  old.Send("GET / HTTP/1.0\r\n\r\n");
  old.ReadToEnd();
  EXPECT_TRUE(old.reset());
}

Task<void> ShortLength(Exchange& exchange) {
  ResponseHead head;
  head.headers.Set("Content-Length", "5");
  (void)co_await exchange.Start(std::move(head));
  (void)co_await exchange.Write("abc");
  EXPECT_EQ((co_await exchange.Write("too long")).code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ((co_await exchange.Finish()).code(), StatusCode::kDataLoss);
}

TEST(Server, HoldsHandlersToTheirDeclaredLength) {
  TestServer server(ShortLength);
  RawSocket client = server.Connect();
  client.Send(kGet);
  const std::string answer = client.ReadToEnd();
  EXPECT_NE(answer.find("Content-Length: 5\r\n"), std::string::npos);
  EXPECT_TRUE(answer.ends_with("\r\n\r\nabc"));
}

Task<void> Inject(Exchange& exchange) {
  Response answer = Text("x");
  answer.head.headers.Set("X-A", "b\r\nX-Evil: 1");
  answer.head.headers.Set("Content-Length", "99");
  (void)co_await exchange.Send(std::move(answer));
}

TEST(Server, WritesNoLineBreaksOfAValue) {
  TestServer server(Inject);
  RawSocket client = server.Connect();
  client.Send(kGet);
  const std::string answer = client.ReadUntil("\r\n\r\nx");
  EXPECT_EQ(answer.find("\nX-Evil"), std::string::npos);
  EXPECT_NE(answer.find("Content-Length: 1\r\n"), std::string::npos);
}

// Holds each request until it is let go.
struct Gate {
  std::atomic<bool> open{false};
  std::atomic<int> inside{0};
  Task<void> Run(Exchange& exchange) {
    ++inside;
    while (!open && !exchange.client_gone()) {
      if (const Status slept = co_await SleepFor(std::chrono::milliseconds(1)); !slept.ok()) break;
    }
    Response answer = Text("let go");
    (void)co_await exchange.Send(std::move(answer));
  }
  void AwaitInside() const {
    while (inside == 0) std::this_thread::yield();
  }
};

// True once nobody listens any more; what is still accepted until then has to end unanswered.
bool StopsListening(const TestServer& server) {
  const TimePoint limit = SystemClock().Now() + std::chrono::seconds(10);
  while (SystemClock().Now() < limit) {
    RawSocket late = server.Connect();
    if (!late.connected()) return true;
    EXPECT_EQ(late.ReadToEnd(), "");
  }
  return false;
}

TEST(Server, StopLetsRunningExchangesFinish) {
  Gate gate;
  TestServer server([&](Exchange& exchange) { return gate.Run(exchange); }, {}, 2);
  RawSocket busy = server.Connect(), idle = server.Connect();
  busy.Send(kGet);
  gate.AwaitInside();
  EXPECT_EQ(server.server->active_requests(), 1u);
  std::thread stopper([&] { server.server->Stop(std::chrono::seconds(10)); });
  EXPECT_EQ(idle.ReadToEnd(), "");
  EXPECT_TRUE(StopsListening(server));
  gate.open = true;
  const std::string answer = busy.ReadToEnd();
  EXPECT_TRUE(answer.ends_with("let go"));
  EXPECT_NE(answer.find("Connection: close\r\n"), std::string::npos);
  busy.Close();
  stopper.join();
  EXPECT_EQ(server.server->open_connections(), 0u);
}

TEST(Server, StopCutsWhatOutlivesTheDrain) {
  Gate gate;
  TestServer server([&](Exchange& exchange) { return gate.Run(exchange); });
  RawSocket busy = server.Connect();
  busy.Send(kGet);
  gate.AwaitInside();
  server.server->Stop(std::chrono::milliseconds(20));
  EXPECT_EQ(busy.ReadToEnd(), "");
  EXPECT_EQ(server.server->open_connections(), 0u);
}

Task<void> SleepsThroughAll(Exchange&) {
  (void)co_await SleepFor(std::chrono::hours(1));
}

TEST(Server, StopCancelsAHandlerThatIgnoresItsClient) {
  TestServer server(SleepsThroughAll);
  RawSocket busy = server.Connect();
  busy.Send(kGet);
  while (server.server->active_requests() == 0) std::this_thread::yield();
  server.server->Stop(Duration::zero());
  EXPECT_EQ(server.server->open_connections(), 0u);
  EXPECT_EQ(server.server->active_requests(), 0u);
}

}  // namespace
}  // namespace llmd::http
