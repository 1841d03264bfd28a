// The gateway in front of a scripted Director: what is sent, tried, refused and taken back.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <deque>
#include <mutex>
#include <thread>

#include "core/http/raw_socket.h"
#include "default_doors.h"
#include "gateway/front.h"
#include "llmd/json.h"

namespace llmd::gateway {
namespace {

using http::testing::RawSocket;
using http::testing::ScriptedPeer;
using std::chrono::milliseconds;
using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::Pair;
using testing::StartsWith;

// Gives the scripted routings in turn (the last for ever) and records what it was asked and shown.
class FakeDirector final : public sched::Director {
 public:
  struct Asked {
    sched::HeaderList headers;
    std::string body, first_target;
    bool has_body = false, again = false;
    std::vector<sched::EndpointId> exclude;
  };

  void Route(sched::RequestInput input, std::function<void(sched::Routing)> done) override {
    std::this_thread::sleep_for(slow);
    sched::Routing routing = Locked(input);
    if (input.state != nullptr) *input.state = routing.state;
    done(std::move(routing));
  }
  bool RouteNow(sched::RequestInput input, sched::Routing& routing,
                std::function<void(sched::Routing)> later) override {
    const std::lock_guard lock(mutex_);
    sched::Routing next = Next(input);
    if (queues) {
      waiting = [later = std::move(later), next] { later(next); };
      return false;
    }
    routing = std::move(next);
    return true;
  }
  void Cancel(const std::shared_ptr<sched::RequestState>&) override { ++cancels; }
  void OnServed(const std::shared_ptr<sched::RequestState>&, std::string_view by) override {
    const std::lock_guard lock(mutex_);
    served = by;
  }
  sched::HeaderList OnResponseHeaders(const std::shared_ptr<sched::RequestState>&, int code,
                                      const sched::HeaderList&) override {
    status = code;
    sched::HeaderList set;
    set.emplace_back("x-from-picker", "1");
    return set;
  }
  bool OnResponseBody(const std::shared_ptr<sched::RequestState>&, std::string_view chunk, bool end,
                      std::string* replaced) override {
    const std::lock_guard lock(mutex_);
    response += chunk;
    ends += end ? 1 : 0;
    if (replacement.empty()) return false;
    *replaced = replacement;
    return true;
  }
  bool wants_response_body() const override { return true; }
  bool ready() const override { return true; }
  std::vector<sched::EndpointInfo> Endpoints() const override { return {}; }
  StatusOr<std::string> Explain(std::string_view) const override { return NotFound("none"); }
  void Stop() override {}

  std::deque<sched::Routing> script;
  bool queues = false;
  milliseconds slow{0};
  std::string replacement;
  std::function<void()> waiting;
  std::vector<Asked> asked;
  std::function<void(const sched::Denial&)> evict;  // the last request
  std::vector<std::function<void(const sched::Denial&)>> evicts;
  std::string served, response;
  std::atomic<int> cancels{0}, ends{0}, status{0};

 private:
  sched::Routing Locked(const sched::RequestInput& input) {
    const std::lock_guard lock(mutex_);
    return Next(input);
  }
  sched::Routing Next(const sched::RequestInput& input) {
    Asked& one = asked.emplace_back();
    one.headers = *input.headers;
    one.body = input.body;
    one.has_body = input.has_body;
    one.first_target = input.first_target;
    one.again = input.first_received != TimePoint();
    one.exclude.assign(input.exclude.begin(), input.exclude.end());
    evict = input.evicted;
    evicts.push_back(input.evicted);
    sched::Routing routing = script.front();
    if (script.size() > 1) script.pop_front();
    // Never looked into here.
    const auto owner = std::make_shared<int>(1);
    routing.state = {owner, reinterpret_cast<sched::RequestState*>(owner.get())};
    return routing;
  }
  std::mutex mutex_;
};

sched::EndpointId Id(uint64_t n) {
  return static_cast<sched::EndpointId>(n);
}

sched::Routing To(const std::vector<uint16_t>& ports) {
  sched::Routing routing;
  routing.ok = true;
  for (const uint16_t port : ports) {
    routing.endpoints.push_back("127.0.0.1:" + std::to_string(port));
    routing.handles.push_back(Id(port));
  }
  return routing;
}

sched::Routing Refusal(int status, std::string message, std::string reason, int retry_after_s) {
  sched::Routing routing;
  routing.denial = {status, std::move(message), std::move(reason), retry_after_s, {}};
  return routing;
}

std::string ReadRequest(RawSocket& socket) {
  std::string seen;
  while (seen.find("\r\n\r\n") == std::string::npos && socket.Receive(&seen)) {
  }
  const size_t head = seen.find("\r\n\r\n"), at = seen.find("Content-Length: ");
  const size_t length = at < head ? std::stoul(seen.substr(at + 16)) : 0;
  while (head != std::string::npos && seen.size() < head + 4 + length && socket.Receive(&seen)) {
  }
  return seen;
}

// Answers what it received.
class EchoEngine {
 public:
  EchoEngine()
      : peer_(1, [](RawSocket& socket, int) {
          for (std::string seen = ReadRequest(socket); !seen.empty(); seen = ReadRequest(socket)) {
            socket.Send("HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(seen.size()) +
                        "\r\n\r\n" + seen);
          }
        }) {}
  uint16_t port() const { return peer_.port(); }

 private:
  ScriptedPeer peer_;
};

uint16_t NobodyThere() {
  ScriptedPeer peer(0, [](RawSocket&, int) {});
  return peer.port();
}

class DirectorCalls : public testing::Test {
 protected:
  static FrontOptions Options(int max_attempts = 3, Duration retry_timeout = {}) {
    FrontOptions options;
    options.tries.max_attempts = max_attempts;
    options.tries.retry_timeout = retry_timeout;
    return options;
  }
  void Open(FrontOptions options = Options(), PageWatch* watch = nullptr) {
    options.access_log = log_;
    front_ = *MakeRelayFront(options, director_, *doors_, {}, Logger(log_, LogLevel::kInfo),
                             metrics_, watch);
  }
  // Engines end after the front, which keeps connections to them.
  EchoEngine& Engine() { return *(echo_ = std::make_unique<EchoEngine>()); }
  ScriptedPeer& Scripted(std::function<void(RawSocket&, int)> script) {
    return *(scripted_ = std::make_unique<ScriptedPeer>(1, std::move(script)));
  }
  // To the end of the connection.
  std::string Post(const std::string& lines = "", const std::string& body = "{\"model\":\"m\"}") {
    if (!front_) Open();
    RawSocket socket = RawSocket::Connect(front_->port());
    socket.Send("POST /v1/completions HTTP/1.1\r\nHost: h\r\nConnection: close\r\n" + lines +
                "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body);
    return socket.ReadToEnd();
  }
  double Metric(const std::string& name) const {
    const std::string page = metrics_.Expose();
    const size_t at = page.find("\n" + name + " ");
    return at == std::string::npos ? -1 : std::stod(page.substr(at + name.size() + 2));
  }

  std::string Log() const {
    std::string text;
    for (const json::Value& line : log_->Lines()) text += line.Dump() + "\n";
    return text;
  }

  std::shared_ptr<MemoryLogSink> log_ = std::make_shared<MemoryLogSink>();
  MetricsRegistry metrics_;
  FakeDirector director_;
  std::unique_ptr<doors::Doors> doors_ = DefaultDoors(metrics_);
  std::unique_ptr<EchoEngine> echo_;
  std::unique_ptr<ScriptedPeer> scripted_;
  std::unique_ptr<Front> front_;
};

TEST_F(DirectorCalls, SendsTheBodyUntouchedAndTellsOfTheAnswer) {
  EchoEngine& engine = Engine();
  director_.script = {To({engine.port()})};
  const std::string body = "{ \"model\" : \"m\",\"x\":1.0, \"big\":9007199254740993 }";
  const std::string seen = Post("", body);
  EXPECT_THAT(seen, AllOf(StartsWith("HTTP/1.1 200"), HasSubstr(body),
                          HasSubstr("x-from-picker: 1"), Not(HasSubstr("x-went-into"))));
  front_->Stop(Duration::zero());
  EXPECT_EQ(director_.asked[0].body, body);
  EXPECT_EQ(director_.served, "127.0.0.1:" + std::to_string(engine.port()));
  EXPECT_EQ(director_.status, 200);
  EXPECT_THAT(director_.response, HasSubstr(body));
  EXPECT_EQ(director_.ends, 1);
  EXPECT_EQ(director_.cancels, 0);
}

TEST_F(DirectorCalls, KeepsTheClientsRequestIdAndMakesOneWhenAbsent) {
  EchoEngine& engine = Engine();
  director_.script = {To({engine.port()})};
  const std::string given = Post("X-Request-Id: mine\r\n");
  EXPECT_EQ(RawSocket::Count(given, "x-request-id: mine\r\n"), 2);  // the engine's and ours
  const std::string made = Post();
  const size_t at = made.find("x-request-id: ");
  const std::string id = made.substr(at + 14, 36);
  EXPECT_EQ(RawSocket::Count(made, "x-request-id: " + id + "\r\n"), 2);
  front_->Stop(Duration::zero());
  EXPECT_THAT(director_.asked[0].headers, Contains(Pair("x-request-id", "mine")));
  EXPECT_THAT(director_.asked[1].headers, Contains(Pair("x-request-id", id)));
}

TEST_F(DirectorCalls, DropsRoutingHeadersOfTheClientAndSetsTheDirectors) {
  EchoEngine& engine = Engine();
  sched::Routing routing = To({engine.port()});
  routing.set_headers.emplace_back("traceparent", "00-t");
  routing.remove_headers.emplace_back("x-llm-d-explain");
  director_.script = {routing};
  const std::string seen = Post(
      "X-Prefiller-Host-Port: evil:1\r\nx-gateway-destination-endpoint: evil:2\r\n"
      "traceparent: theirs\r\nX-LLM-D-Explain: secret\r\nX-Mixed: Kept\r\n");
  EXPECT_THAT(seen,
              AllOf(HasSubstr("traceparent: 00-t"), HasSubstr("X-Mixed: Kept"),
                    Not(HasSubstr("evil")), Not(HasSubstr("theirs")), Not(HasSubstr("secret"))));
  front_->Stop(Duration::zero());
  EXPECT_THAT(director_.asked[0].headers, Contains(Pair("x-mixed", "Kept")));
  EXPECT_THAT(director_.asked[0].headers, Not(Contains(Pair("x-prefiller-host-port", "evil:1"))));
  EXPECT_THAT(director_.asked[0].headers, Contains(Pair(":path", "/v1/completions")));
}

TEST_F(DirectorCalls, SendsTheEditedBodyWithItsLength) {
  EchoEngine& engine = Engine();
  sched::Routing routing = To({engine.port()});
  routing.body_edits.push_back({10, 11, "longer-name"});
  director_.script = {routing};
  EXPECT_THAT(Post(),
              AllOf(HasSubstr("{\"model\":\"longer-name\"}"), HasSubstr("Content-Length: 23")));
}

TEST_F(DirectorCalls, ManyEditsAreOneBodyToo) {
  EchoEngine& engine = Engine();
  sched::Routing routing = To({engine.port()});
  std::string body, expected;
  for (size_t i = 0; i < 100; ++i) {
    routing.body_edits.push_back({i * 2, i * 2 + 1, "yy"});
    body += "x,";
    expected += "yy,";
  }
  director_.script = {routing};
  EXPECT_THAT(Post("", body), HasSubstr("\r\n\r\n" + expected));
}

TEST_F(DirectorCalls, PutsTheModelsNameBack) {
  EchoEngine& engine = Engine();
  sched::Routing routing = To({engine.port()});
  routing.edits_response = true;
  director_.script = {routing};
  director_.replacement = "replaced";
  EXPECT_THAT(Post(), AllOf(HasSubstr("Transfer-Encoding: chunked"), HasSubstr("replaced")));
}

TEST_F(DirectorCalls, TriesTheFallbackWhenTheFirstRefuses) {
  EchoEngine& engine = Engine();
  director_.script = {To({NobodyThere(), engine.port()})};
  EXPECT_THAT(Post(), StartsWith("HTTP/1.1 200"));
  front_->Stop(Duration::zero());
  EXPECT_EQ(director_.asked.size(), 1U);
  EXPECT_EQ(director_.served, "127.0.0.1:" + std::to_string(engine.port()));
  EXPECT_EQ(Metric("llmd_gateway_retries_total"), 1);
}

TEST_F(DirectorCalls, AsksAgainWithoutTheEndpointThatFailedAndSaysItIsTheSameRequest) {
  EchoEngine& engine = Engine();
  const uint16_t dead = NobodyThere();
  sched::Routing first = To({dead});
  first.target_model = "tuned";
  director_.script = {first, To({engine.port()})};
  EXPECT_THAT(Post(), StartsWith("HTTP/1.1 200"));
  front_->Stop(Duration::zero());
  ASSERT_EQ(director_.asked.size(), 2U);
  EXPECT_FALSE(director_.asked[0].again);
  EXPECT_TRUE(director_.asked[1].again);
  EXPECT_EQ(director_.asked[1].first_target, "tuned");
  EXPECT_THAT(director_.asked[1].exclude, ElementsAre(Id(dead)));
  EXPECT_EQ(director_.cancels, 1);  // the failed try was over before the next was asked for
}

TEST_F(DirectorCalls, IsSentToNoMoreEndpointsThanAllowed) {
  std::vector<std::unique_ptr<ScriptedPeer>> ill;
  std::vector<uint16_t> ports;
  for (int i = 0; i < 3; ++i) {
    ill.push_back(std::make_unique<ScriptedPeer>(1, [](RawSocket& s, int) { ReadRequest(s); }));
    ports.push_back(ill.back()->port());
  }
  EchoEngine& well = Engine();
  ports.push_back(well.port());
  director_.script = {To(ports)};
  Open(Options(3));
  EXPECT_THAT(Post(), StartsWith("HTTP/1.1 503"));
  EXPECT_EQ(Metric("llmd_gateway_retries_total"), 2);
}

TEST_F(DirectorCalls, EndpointsThatCannotBeReachedAreNoAttempts) {
  std::vector<uint16_t> ports;
  for (int i = 0; i < 5; ++i) ports.push_back(NobodyThere());
  ports.push_back(Engine().port());
  director_.script = {To(ports)};
  Open(Options(1));
  EXPECT_THAT(Post(), StartsWith("HTTP/1.1 200"));
  EXPECT_EQ(Metric("llmd_gateway_retries_total"), 5);
}

TEST_F(DirectorCalls, WhenAllHaveFailedTheyAreTriedAgainAfterABackOff) {
  EchoEngine& engine = Engine();
  const uint16_t dead = NobodyThere();
  director_.script = {To({dead}), Refusal(503, "none left", "rejected-no-endpoints", 0),
                      To({engine.port()})};
  Open(Options(3, std::chrono::seconds(10)));
  EXPECT_THAT(Post(), StartsWith("HTTP/1.1 200"));
  front_->Stop(Duration::zero());
  ASSERT_EQ(director_.asked.size(), 3U);
  EXPECT_THAT(director_.asked[1].exclude, ElementsAre(Id(dead)));
  EXPECT_TRUE(director_.asked[2].again);
  // It refused, so it is out; but it has not failed this round.
  EXPECT_THAT(director_.asked[2].exclude, ElementsAre(Id(dead)));
}

TEST_F(DirectorCalls, NotBeyondTheTimeForIt) {
  const uint16_t dead = NobodyThere();
  director_.script = {To({dead})};
  Open(Options(3, milliseconds(200)));
  EXPECT_THAT(Post(), AllOf(StartsWith("HTTP/1.1 503"), HasSubstr("no model server answered")));
  EXPECT_GE(Metric("llmd_gateway_retries_total"), 1);
}

constexpr std::string_view kBusy =
    "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7\r\nX-Own: y\r\nContent-Length: "
    "8\r\n\r\n{\"no\":1}";

// Answers every request on one connection with the bytes.
std::function<void(RawSocket&, int)> Says(std::string_view bytes) {
  return [bytes](RawSocket& socket, int) {
    while (!ReadRequest(socket).empty()) socket.Send(bytes);
  };
}

TEST_F(DirectorCalls, A429IsTriedElsewhere) {
  EchoEngine& engine = Engine();
  ScriptedPeer& busy = Scripted(Says(kBusy));
  director_.script = {To({busy.port()}), To({engine.port()})};
  EXPECT_THAT(Post(), StartsWith("HTTP/1.1 200"));
  front_->Stop(Duration::zero());
  ASSERT_EQ(director_.asked.size(), 2U);
  EXPECT_THAT(director_.asked[1].exclude, ElementsAre(Id(busy.port())));
  EXPECT_EQ(director_.status, 200);  // the hooks saw the last answer only
  EXPECT_EQ(director_.cancels, 1);
}

TEST_F(DirectorCalls, WhenNobodyElseCanItPassesAsItCameAtOnce) {
  ScriptedPeer& busy = Scripted(Says(kBusy));
  Open(Options(3, std::chrono::minutes(1)));
  for (const sched::Routing& next :
       {Refusal(503, "none left", "rejected-no-endpoints", 0), Refusal(429, "full", "", 1),
        To({busy.port()}), To({NobodyThere()})}) {
    director_.script = {To({busy.port()}), next};
    EXPECT_THAT(Post(), AllOf(StartsWith("HTTP/1.1 429"), HasSubstr("Retry-After: 7\r\n"),
                              HasSubstr("X-Own: y\r\n"), HasSubstr("x-request-id: "),
                              HasSubstr("{\"no\":1}")));
  }
}

TEST_F(DirectorCalls, OneThatIsTooLargeToBeKeptPassesAtOnce) {
  const std::string large =
      "HTTP/1.1 429 Busy\r\nContent-Length: 300000\r\n\r\n" + std::string(300'000, 'x');
  ScriptedPeer& busy = Scripted(Says(large));
  director_.script = {To({busy.port()}), To({Engine().port()})};
  EXPECT_THAT(Post(), AllOf(StartsWith("HTTP/1.1 429"), HasSubstr("Content-Length: 300000\r\n")));
}

TEST_F(DirectorCalls, ASidecarWhoseEngineIsGoneIsNoAnswer) {
  EchoEngine& engine = Engine();
  ScriptedPeer& sidecar =
      Scripted(Says("HTTP/1.1 502 Bad Gateway\r\nx-llmd-upstream-failure: refused\r\n"
                    "Content-Length: 2\r\n\r\n{}"));
  director_.script = {To({sidecar.port()}), To({engine.port()})};
  EXPECT_THAT(Post(), StartsWith("HTTP/1.1 200"));
  // As if it had refused itself.
  EXPECT_THAT(Post(), StartsWith("HTTP/1.1 200"));
  front_->Stop(Duration::zero());
  ASSERT_EQ(director_.asked.size(), 3U);
  EXPECT_THAT(director_.asked[2].exclude, ElementsAre(Id(sidecar.port())));
}

TEST_F(DirectorCalls, WhatPassesDoesNotSayHowASidecarsEngineFailed) {
  ScriptedPeer sidecar(2, Says("HTTP/1.1 502 Bad Gateway\r\nx-llmd-upstream-failure: reset\r\n"
                               "Content-Length: 2\r\n\r\n{}"));
  for (const int attempts : {1, 2}) {
    director_.script = {To({sidecar.port()}), Refusal(503, "none", "rejected-no-endpoints", 0)};
    Open(Options(attempts));
    EXPECT_THAT(Post(), AllOf(StartsWith("HTTP/1.1 502"), Not(HasSubstr("upstream-failure"))));
    front_->Stop(Duration::zero());
  }
}

TEST_F(DirectorCalls, A502Or500OfAnEnginesOwnPasses) {
  ScriptedPeer& engine = Scripted(Says("HTTP/1.1 502 Oops\r\nContent-Length: 2\r\n\r\n{}"));
  director_.script = {To({engine.port()}), To({Engine().port()})};
  EXPECT_THAT(Post(), StartsWith("HTTP/1.1 502"));
}

TEST_F(DirectorCalls, TheRequestsTimeIsOverWithA504ThatIsHeldAgainstNobody) {
  ScriptedPeer& silent = Scripted([](RawSocket& socket, int) {
    ReadRequest(socket);
    ReadRequest(socket);
  });
  director_.script = {To({silent.port()})};
  FrontOptions options = Options(3, std::chrono::minutes(1));
  options.timeouts = *TimeoutTable::Create({}, {"/v1/comp*=request:50ms"});
  Open(options);
  EXPECT_THAT(Post(), AllOf(StartsWith("HTTP/1.1 504"), HasSubstr("time is over")));
  front_->Stop(Duration::zero());
  EXPECT_EQ(director_.asked.size(), 1U);
  EXPECT_THAT(Log(), HasSubstr("\"kind\":\"deadline\""));
}

TEST_F(DirectorCalls, ErrorsOfMessagesHaveAnthropicsForm) {
  director_.script = {Refusal(429, "the queue is full", "rejected-saturated", 7)};
  Open();
  RawSocket refused = RawSocket::Connect(front_->port());
  refused.Send(
      "POST /v1/messages HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: "
      "2\r\n\r\n{}");
  EXPECT_THAT(refused.ReadToEnd(),
              AllOf(HasSubstr(R"({"type":"error","error":{"message":"the queue is full")"),
                    HasSubstr(R"("type":"rate_limit_error")")));

  ScriptedPeer& engine = Scripted([](RawSocket& socket, int) {
    ReadRequest(socket);
    socket.Send(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: "
        "chunked\r\n\r\n9\r\ndata: 1\n\n\r\n");
  });
  director_.script = {To({engine.port()})};
  RawSocket cut = RawSocket::Connect(front_->port());
  cut.Send("POST /v1/messages HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}");
  EXPECT_THAT(cut.ReadToEnd(),
              AllOf(HasSubstr("event: error\ndata: {\"type\":\"error\",\"error\":{\"message\":"),
                    HasSubstr("\"type\":\"api_error\"")));
}

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
