// The gateway in front of a scripted Director: who falls silent, waits, leaves and is taken back.
#include "services/gateway/director_calls.h"

namespace llmd::gateway {
namespace {

// Reads nothing: what the test tells of a page is all that is known of it.
class NoPages final : public sched::Fetch {
 public:
  void Get(const sched::EndpointInfo&, const sched::PageSpec&, Duration,
           std::function<void(StatusOr<std::string>)> done) override {
    done(silent ? StatusOr<std::string>(DeadlineExceeded("no answer in time"))
                : StatusOr<std::string>(std::string()));
  }
  bool silent = false;
};

TEST_F(DirectorCalls, AnEndpointWhosePageIsSilentLosesWhatWaitsForAByte) {
  EchoEngine& engine = Engine();
  std::atomic<bool> read{false};
  ScriptedPeer& stopped = Scripted([&](RawSocket& socket, int) {
    ReadRequest(socket);
    read = true;
    ReadRequest(socket);  // until it is let go
  });
  director_.script = {To({stopped.port()}), To({engine.port()})};
  const auto pages = std::make_shared<NoPages>();
  FakeClock clock;
  PageWatch watch(pages, std::chrono::seconds(2), clock);
  const auto ask = [&](uint16_t port) {
    sched::EndpointInfo info;
    info.address = "127.0.0.1";
    info.port = port;
    watch.Get(info, {}, std::chrono::seconds(1), [](const StatusOr<std::string>&) {});
  };
  Open(Options(), &watch);
  std::thread pages_reader([&] {
    while (!read) std::this_thread::sleep_for(milliseconds(1));
    ask(engine.port());
    pages->silent = true;
    ask(stopped.port());
    ask(stopped.port());
    clock.Advance(std::chrono::seconds(3));
  });
  EXPECT_THAT(Post(), StartsWith("HTTP/1.1 200"));
  pages_reader.join();
  front_->Stop(Duration::zero());
  ASSERT_EQ(director_.asked.size(), 2U);
  EXPECT_THAT(director_.asked[1].exclude, ElementsAre(Id(stopped.port())));
  EXPECT_THAT(Log(), HasSubstr("its page has not answered"));
}

TEST_F(DirectorCalls, OneThatFallsSilentIsOutBeforeARequestIsLostToIt) {
  EchoEngine& engine = Engine();
  EchoEngine stopped;
  const auto pages = std::make_shared<NoPages>();
  FakeClock clock;
  PageWatch watch(pages, std::chrono::seconds(2), clock);
  const auto ask = [&](uint16_t port) {
    sched::EndpointInfo info;
    info.address = "127.0.0.1";
    info.port = port;
    watch.Get(info, {}, std::chrono::seconds(1), [](const StatusOr<std::string>&) {});
  };
  Open(Options(), &watch);
  director_.script = {To({stopped.port()}), To({engine.port()})};
  EXPECT_THAT(Post(), StartsWith("HTTP/1.1 200"));
  ask(engine.port());
  pages->silent = true;
  ask(stopped.port());
  ask(stopped.port());
  clock.Advance(std::chrono::seconds(3));
  // Looked at every 250 ms.
  while (watch.Silent()->empty()) std::this_thread::sleep_for(milliseconds(5));
  do {
    EXPECT_THAT(Post(), StartsWith("HTTP/1.1 200"));
  } while (director_.asked.back().exclude.empty() && director_.asked.size() < 1000);
  EXPECT_THAT(director_.asked.back().exclude, ElementsAre(Id(stopped.port())));
  front_->Stop(Duration::zero());
}

TEST_F(DirectorCalls, TriesEndpointsThatAreOutWhenNothingElseIsLeft) {
  const uint16_t dead = NobodyThere();
  director_.script = {To({dead}), Refusal(503, "none left", "rejected-no-endpoints", 0),
                      Refusal(503, "no endpoint is in the subset", "rejected-no-endpoints", 0),
                      To({dead})};
  EXPECT_THAT(Post(), StartsWith("HTTP/1.1 503"));
  EXPECT_THAT(Post(), AllOf(StartsWith("HTTP/1.1 503"), HasSubstr("no model server answered")));
  front_->Stop(Duration::zero());
  ASSERT_GE(director_.asked.size(), 4U);
  EXPECT_THAT(director_.asked[2].exclude, ElementsAre(Id(dead)));
  EXPECT_THAT(director_.asked[3].exclude, IsEmpty());
  EXPECT_EQ(Metric("llmd_gateway_panic_attempts_total"), 1);
}

TEST_F(DirectorCalls, Gives503WithAnErrorObjectThatNamesNoEngine) {
  const uint16_t dead = NobodyThere();
  director_.script = {To({dead}), Refusal(503, "none left", "rejected-no-endpoints", 0)};
  const std::string seen = Post();
  EXPECT_THAT(seen, AllOf(StartsWith("HTTP/1.1 503"), HasSubstr("\"code\":503"),
                          HasSubstr("x-request-id: "), Not(HasSubstr(std::to_string(dead)))));
}

TEST_F(DirectorCalls, RelaysARefusalWithReasonAndRetryAfter) {
  director_.script = {Refusal(429, "the queue is full", "rejected-saturated", 7)};
  const std::string seen = Post();
  EXPECT_THAT(seen, AllOf(StartsWith("HTTP/1.1 429"), HasSubstr("retry-after: 7"),
                          HasSubstr("x-llm-d-request-dropped-reason: rejected-saturated"),
                          HasSubstr("\"message\":\"the queue is full\"")));
}

TEST_F(DirectorCalls, LargeBodiesAreReadOnAnotherThread) {
  EchoEngine& engine = Engine();
  director_.script = {To({engine.port()})};
  director_.slow = milliseconds(300);
  Open();
  std::thread large([&] { EXPECT_THAT(Post("", std::string(1 << 20, 'x')), HasSubstr("200 OK")); });
  std::this_thread::sleep_for(milliseconds(100));
  const auto begun = std::chrono::steady_clock::now();
  RawSocket other = RawSocket::Connect(front_->port());
  other.Send("GET /nowhere HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
  EXPECT_THAT(other.ReadToEnd(), StartsWith("HTTP/1.1 404"));
  EXPECT_LT(std::chrono::steady_clock::now() - begun, milliseconds(150));
  large.join();
  // One whose client leaves meanwhile ends when the decision has come.
  {
    RawSocket leaves = RawSocket::Connect(front_->port());
    leaves.Send("POST /v1/completions HTTP/1.1\r\nHost: h\r\nContent-Length: 2000000\r\n\r\n" +
                std::string(2'000'000, 'y'));
    std::this_thread::sleep_for(milliseconds(100));
  }
  std::this_thread::sleep_for(milliseconds(500));
  front_->Stop(Duration::zero());
  EXPECT_EQ(director_.asked.back().body.size(), 2'000'000U);
  EXPECT_EQ(Metric("llmd_gateway_requests_inflight"), 0);
}

TEST_F(DirectorCalls, WaitsForADecisionThatQueues) {
  EchoEngine& engine = Engine();
  director_.script = {To({engine.port()})};
  director_.queues = true;
  Open();
  std::thread decides([&] {
    std::this_thread::sleep_for(milliseconds(50));
    director_.waiting();
  });
  EXPECT_THAT(Post(), StartsWith("HTTP/1.1 200"));
  decides.join();
}

TEST_F(DirectorCalls, AClientThatLeavesTheQueueIsCancelledAndItsRequestStaysReadable) {
  director_.script = {To({NobodyThere()})};
  director_.queues = true;
  Open();
  {
    RawSocket socket = RawSocket::Connect(front_->port());
    socket.Send("POST /v1/completions HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}");
    std::this_thread::sleep_for(milliseconds(50));
  }
  std::this_thread::sleep_for(milliseconds(50));
  director_.waiting();  // the decision comes all the same, and goes nowhere
  std::this_thread::sleep_for(milliseconds(50));
  front_->Stop(Duration::zero());
  EXPECT_EQ(Metric("llmd_gateway_client_gone_total"), 1);
  EXPECT_EQ(Metric("llmd_gateway_retries_total"), 0);
  EXPECT_EQ(Metric("llmd_gateway_requests_inflight"), 0);
}

class Evictions : public DirectorCalls {
 protected:
  const sched::Denial denial_{429, "request evicted by flow control", "evicted-priority", 9, {}};
};

TEST_F(Evictions, MidStreamBecomesAnErrorEvent) {
  ScriptedPeer& engine = Scripted([&](RawSocket& socket, int) {
    ReadRequest(socket);
    socket.Send(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        "9\r\ndata: 1\n\n\r\n");
    std::this_thread::sleep_for(milliseconds(50));
    director_.evict(denial_);
    ReadRequest(socket);
  });
  director_.script = {To({engine.port()})};
  const std::string seen = Post();
  EXPECT_THAT(seen, AllOf(HasSubstr("data: 1\n\n"), HasSubstr("data: {\"error\""),
                          HasSubstr("evicted by flow control"), Not(HasSubstr("[DONE]"))));
  front_->Stop(Duration::zero());
  EXPECT_EQ(director_.cancels, 1);
}

TEST_F(Evictions, BeforeTheAnswerIsA429AndNoOtherEndpointIsTried) {
  ScriptedPeer& engine = Scripted([&](RawSocket& socket, int) {
    ReadRequest(socket);
    director_.evict(denial_);
    ReadRequest(socket);
  });
  director_.script = {To({engine.port(), NobodyThere()})};
  EXPECT_THAT(Post(), AllOf(StartsWith("HTTP/1.1 429"), HasSubstr("retry-after: 9")));
  EXPECT_EQ(Metric("llmd_gateway_retries_total"), 0);
}

TEST_F(Evictions, OfATryThatIsOverDoNotHitTheNextOne) {
  ScriptedPeer broken(1, [](RawSocket& socket, int) { ReadRequest(socket); });
  ScriptedPeer& engine = Scripted([&](RawSocket& socket, int) {
    ReadRequest(socket);
    director_.evicts[0](denial_);
    std::this_thread::sleep_for(milliseconds(50));
    socket.Send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    ReadRequest(socket);
  });
  director_.script = {To({broken.port()}), To({engine.port()})};
  EXPECT_THAT(Post(), AllOf(StartsWith("HTTP/1.1 200"), testing::EndsWith("ok")));
  director_.evicts[1](denial_);  // when all is over it hits nobody
  front_->Stop(Duration::zero());
}

// The workers are busy with large bodies while the client of another one leaves.
TEST_F(DirectorCalls, ALargeBodyWhoseClientHasLeftIsNotRead) {
  EchoEngine& engine = Engine();
  director_.script = {To({engine.port()})};
  director_.slow = milliseconds(400);
  Open();
  constexpr int kBusy = 4;  // at least as many as there are workers
  std::vector<RawSocket> sockets;
  const auto large = [](char fill) {
    return "POST /v1/completions HTTP/1.1\r\nHost: h\r\nContent-Length: 1100000\r\n\r\n" +
           std::string(1'100'000, fill);
  };
  for (int i = 0; i < kBusy; ++i) {
    sockets.push_back(RawSocket::Connect(front_->port()));
    sockets.back().Send(large('x'));
  }
  std::this_thread::sleep_for(milliseconds(100));
  {
    RawSocket leaves = RawSocket::Connect(front_->port());
    leaves.Send(large('y'));
    std::this_thread::sleep_for(milliseconds(50));
  }
  sockets.clear();
  while (Metric("llmd_gateway_requests_inflight") != 0)
    std::this_thread::sleep_for(milliseconds(20));
  std::this_thread::sleep_for(milliseconds(500));
  front_->Stop(Duration::zero());
  for (const FakeDirector::Asked& each : director_.asked) EXPECT_NE(each.body[0], 'y');
}

TEST_F(DirectorCalls, RoutesByTheHeadAlone) {
  director_.script = {Refusal(500, "not to be asked", "", 0)};
  Open();
  const auto ask = [&](const std::string& line) {
    RawSocket socket = RawSocket::Connect(front_->port());
    socket.Send(line + " HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    return socket.ReadToEnd();
  };
  EXPECT_THAT(ask("GET /nowhere"), AllOf(StartsWith("HTTP/1.1 404"), HasSubstr("not_found_error")));
  EXPECT_THAT(ask("PUT /score"), AllOf(StartsWith("HTTP/1.1 405"), HasSubstr("allow: GET")));
  EXPECT_THAT(ask("OPTIONS /score"), AllOf(StartsWith("HTTP/1.1 204"), HasSubstr("allow: GET")));
  for (const char* path : {"/v1/../metrics", "/v1/..%2fmetrics", "/v1/..;/metrics", "/v1/..\\x",
                           "/v1/%252e%252e/x", "/v1/%c0%ae%c0%ae/x"})
    EXPECT_THAT(ask(std::string("GET ") + path), StartsWith("HTTP/1.1 400")) << path;
  const std::string bad = ask("GET /v1/x HTTP/9.9\r\nX:");
  EXPECT_THAT(bad, AllOf(StartsWith("HTTP/1.1 505"), HasSubstr("x-request-id: ")));
  front_->Stop(Duration::zero());
  EXPECT_THAT(director_.asked, IsEmpty());
  front_.reset();
  EXPECT_EQ(log_->Lines().size(), 10U);  // each was logged
}

}  // namespace
}  // namespace llmd::gateway
