#include "gateway/forwarder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <deque>
#include <thread>

#include "core/http/fixture.h"
#include "llmd/json.h"

namespace llmd::gateway {
namespace {

using http::testing::RawSocket;
using http::testing::TestServer;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Pair;

// Gives the scripted routings in turn (the last for ever) and records what it was asked.
class FakePicker final : public Picker {
 public:
  class FakePick final : public Pick {
   public:
    FakePick(FakePicker& owner, sched::Routing routing, std::string body)
        : owner_(owner), routing_(std::move(routing)), body_(std::move(body)) {}
    ~FakePick() override { ++owner_.ended; }
    const sched::Routing& routing() const override { return routing_; }
    std::string_view body() const override { return body_; }
    void OnServed(std::string_view endpoint) override { owner_.served = endpoint; }
    http::Task<HeaderList> OnResponseHeaders(int status, const HeaderList&) override {
      owner_.status = status;
      HeaderList set;
      set.emplace_back("x-from-picker", "1");
      co_return set;
    }
    http::Task<std::string_view> OnResponseBody(std::string_view chunk, bool) override {
      owner_.response += chunk;
      if (owner_.evict_at_body) denial_ = owner_.eviction;
      co_return chunk;
    }
    const sched::Denial* evicted() const override { return denial_ ? &*denial_ : nullptr; }
    void OnEvicted(std::function<void()> callback) override {
      if (!callback || !owner_.evict_before_call) return;
      denial_ = owner_.eviction;
      callback();
    }

   private:
    std::optional<sched::Denial> denial_;
    FakePicker& owner_;
    sched::Routing routing_;
    std::string body_;
  };

  http::Task<StatusOr<std::unique_ptr<Pick>>> Choose(http::Exchange&, PickInput input) override {
    asked.push_back(input);
    ended_when_asked.push_back(ended);
    if (!failure.ok()) co_return failure;
    sched::Routing routing = script.front();
    if (script.size() > 1) script.pop_front();
    std::unique_ptr<Pick> pick =
        std::make_unique<FakePick>(*this, std::move(routing), edited.value_or(*input.body));
    co_return pick;
  }
  bool ready() const override { return true; }
  StatusOr<std::string> Explain(std::string_view) const override { return NotFound("none"); }

  std::deque<sched::Routing> script;
  Status failure;
  std::optional<std::string> edited;
  sched::Denial eviction{429, "request evicted by flow control", "evicted-priority", 9, {}};
  bool evict_at_body = false, evict_before_call = false;
  std::vector<PickInput> asked;
  std::vector<int> ended_when_asked;
  std::string served;
  int status = 0;
  std::atomic<int> ended{0};
  std::string response;
};

sched::Routing To(std::vector<std::string> endpoints) {
  sched::Routing routing;
  routing.ok = true;
  routing.endpoints = std::move(endpoints);
  return routing;
}

sched::Routing Refusal(int status, std::string message, std::string reason, int retry_after_s) {
  sched::Routing routing;
  routing.denial = {status, std::move(message), std::move(reason), retry_after_s, {}};
  return routing;
}

struct Forward {
  std::unique_ptr<Forwarder>* forwarder;
  http::Task<void> operator()(http::Exchange& exchange) const {
    co_await (*forwarder)->Handle(exchange);
  }
};

// Answers with the head lines and body it received.
http::Task<void> EchoEngine(http::Exchange& exchange) {
  auto body = co_await exchange.ReadAll();
  if (!body.ok()) co_return;
  http::Response answer;
  for (const auto& [name, value] : exchange.request().headers.lines()) {
    answer.body += name + ": " + value + "\n";
  }
  answer.body += *body;
  (void)co_await exchange.Send(std::move(answer));
}

// One event, then a cut.
http::Task<void> CutEngine(http::Exchange& exchange) {
  (void)co_await exchange.ReadAll();
  http::ResponseHead head;
  head.headers.Add("Content-Type", "text/event-stream");
  (void)co_await exchange.Start(std::move(head));
  (void)co_await exchange.Write("data: {\"half\":1}\n\n");
  exchange.Abort();
}

class ForwarderTest : public testing::Test {
 protected:
  void SetUp() override {
    client = std::make_unique<http::Client>(*gateway.runtime, http::ClientOptions());
    forwarder = std::make_unique<Forwarder>(picker, *client, ForwarderOptions(), Logger(), metrics,
                                            SystemClock());
  }
  void TearDown() override {
    gateway.server->Stop(Duration::zero());
    forwarder.reset();
    client.reset();
  }

  http::Response Post(std::string body, http::Headers headers = {}) {
    http::RequestHead head;
    head.method = "POST";
    head.target = "/v1/completions";
    head.headers = std::move(headers);
    auto answer = http::Client(*engine.runtime, {})
                      .FetchBlocking(gateway.address(), std::move(head), std::move(body), {});
    EXPECT_TRUE(answer.ok()) << answer.status().ToString();
    return answer.ok() ? *answer : http::Response();
  }
  std::string EngineAddress() const { return engine.address().ToString(); }
  static std::string NobodyThere() {
    TestServer gone(EchoEngine);
    return gone.address().ToString();
  }

  // The client may have its answer before the pick is gone.
  int EndedPicks(int expected) const {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(5);
    while (picker.ended != expected && std::chrono::steady_clock::now() < deadline)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return picker.ended;
  }

  FakePicker picker;
  MetricsRegistry metrics;
  std::unique_ptr<Forwarder> forwarder;
  std::unique_ptr<http::Client> client;
  TestServer engine{EchoEngine};
  TestServer gateway{Forward{&forwarder}};
};

TEST_F(ForwarderTest, SendsTheBodyUntouchedAndTellsThePickerOfTheAnswer) {
  picker.script = {To({EngineAddress()})};
  const http::Response answer = Post("{ \"a\" : 1.0 }");
  EXPECT_EQ(answer.head.status, 200);
  EXPECT_THAT(answer.body, HasSubstr("{ \"a\" : 1.0 }"));
  EXPECT_EQ(answer.head.headers.Get("x-from-picker"), "1");
  EXPECT_EQ(picker.status, 200);
  EXPECT_EQ(picker.response, answer.body);
  EXPECT_EQ(EndedPicks(1), 1);
}

TEST_F(ForwarderTest, KeepsTheClientsRequestIdAndMakesOneWhenAbsent) {
  picker.script = {To({EngineAddress()})};
  http::Headers mine;
  mine.Add("X-Request-Id", "abc");
  const http::Response kept = Post("{}", mine);
  EXPECT_EQ(kept.head.headers.Get("x-request-id"), "abc");
  EXPECT_THAT(picker.asked[0].headers, Contains(Pair("x-request-id", "abc")));
  const http::Response made = Post("{}");
  const std::string id(made.head.headers.Get("x-request-id").value_or(""));
  EXPECT_EQ(id.size(), 36u);
  EXPECT_THAT(made.body, HasSubstr(id));
}

TEST_F(ForwarderTest, DropsRoutingHeadersOfTheClientAndSetsThePickers) {
  sched::Routing routing = To({EngineAddress()});
  routing.set_headers = {{"x-prefiller-host-port", "10.0.0.1:8000"}};
  routing.remove_headers = {"x-prefiller-host-port", "x-secret"};
  picker.script = {routing};
  http::Headers headers;
  headers.Add("X-Prefiller-Host-Port", "evil:1");
  headers.Add("x-prefiller-url", "http://evil");
  headers.Add("x-secret", "s");
  const http::Response answer = Post("{}", headers);
  EXPECT_THAT(answer.body, HasSubstr("x-prefiller-host-port: 10.0.0.1:8000"));
  EXPECT_THAT(answer.body, testing::Not(HasSubstr("evil")));
  EXPECT_THAT(answer.body, testing::Not(HasSubstr("x-secret")));
}

TEST_F(ForwarderTest, SendsTheEditedBodyWithItsLength) {
  picker.script = {To({EngineAddress()})};
  picker.edited = "{\"model\":\"renamed\"}";
  EXPECT_THAT(Post("{\"model\":\"m\"}").body, HasSubstr("Content-Length: 19\n"));
}

TEST_F(ForwarderTest, TriesTheFallbackWhenTheFirstRefuses) {
  const std::string dead = NobodyThere();
  picker.script = {To({dead, EngineAddress()})};
  EXPECT_EQ(Post("{}").head.status, 200);
  EXPECT_EQ(picker.asked.size(), 1u);
  EXPECT_EQ(picker.served, EngineAddress());
}

TEST_F(ForwarderTest, AsksAgainWithoutTheEndpointThatFailed) {
  const std::string dead = NobodyThere();
  picker.script = {To({dead}), To({EngineAddress()})};
  EXPECT_EQ(Post("{}").head.status, 200);
  ASSERT_EQ(picker.asked.size(), 2u);
  EXPECT_THAT(picker.asked[0].exclude, IsEmpty());
  EXPECT_THAT(picker.asked[1].exclude, ElementsAre(dead));
  Post("{}");
  EXPECT_THAT(picker.asked[2].exclude, IsEmpty());
  EXPECT_THAT(picker.asked[2].avoid, ElementsAre(dead))
      << "an ejected endpoint is left out at once";
}

TEST_F(ForwarderTest, AFailedTryIsOverBeforeTheNextIsAskedFor) {
  picker.script = {To({NobodyThere()}), To({NobodyThere()}), To({EngineAddress()})};
  EXPECT_EQ(Post("{}").head.status, 200);
  EXPECT_THAT(picker.ended_when_asked, ElementsAre(0, 1, 2));
}

TEST_F(ForwarderTest, ARetrySaysWhenTheFirstTryCameAndWhatModelItWasSentFor) {
  sched::Routing first = To({NobodyThere()}), second = To({EngineAddress()});
  first.target_model = "canary";
  second.target_model = "other";
  picker.script = {first, second};
  const TimePoint before = SystemClock().Now();
  EXPECT_EQ(Post("{}").head.status, 200);
  ASSERT_EQ(picker.asked.size(), 2u);
  EXPECT_GE(picker.asked[0].received, before);
  EXPECT_EQ(picker.asked[1].received, picker.asked[0].received);
  EXPECT_EQ(picker.asked[0].target_model, "");
  EXPECT_EQ(picker.asked[1].target_model, "canary");
}

TEST_F(ForwarderTest, TriesEjectedEndpointsWhenNothingElseIsLeft) {
  const std::string dead = NobodyThere();
  picker.script = {To({dead}), To({EngineAddress()})};
  Post("{}");
  picker.script = {
      Refusal(503, "no endpoint is in the requested subset", "rejected-no-endpoints", 0),
      To({dead, EngineAddress()})};
  EXPECT_EQ(Post("{}").head.status, 200);
  ASSERT_EQ(picker.asked.size(), 4u);
  EXPECT_THAT(picker.asked[2].avoid, ElementsAre(dead));
  EXPECT_THAT(picker.asked[3].avoid, IsEmpty());
  EXPECT_THAT(metrics.Expose(), HasSubstr("llmd_gateway_panic_attempts_total 1"));
}

TEST_F(ForwarderTest, TakesARefusalForWhatItIsWhenNoneWasAvoided) {
  picker.script = {Refusal(503, "no pods available in datastore", "rejected-no-endpoints", 0)};
  EXPECT_EQ(Post("{}").head.status, 503);
  EXPECT_EQ(picker.asked.size(), 1u);
}

// Takes every descriptor that is left to the process.
class NoDescriptors {
 public:
  NoDescriptors() {
    getrlimit(RLIMIT_NOFILE, &before_);
    const rlimit few{64, before_.rlim_max};
    setrlimit(RLIMIT_NOFILE, &few);
    for (int fd = 0; (fd = dup(0)) >= 0;) taken_.push_back(fd);
  }
  ~NoDescriptors() {
    for (const int fd : taken_) close(fd);
    setrlimit(RLIMIT_NOFILE, &before_);
  }
  NoDescriptors(const NoDescriptors&) = delete;
  NoDescriptors& operator=(const NoDescriptors&) = delete;

 private:
  rlimit before_{};
  std::vector<int> taken_;
};

TEST_F(ForwarderTest, AFaultOfOurOwnIsHeldAgainstNoEndpoint) {
  picker.script = {To({EngineAddress()})};
  RawSocket client = gateway.Connect();
  const std::string post =
      "POST /v1/completions HTTP/1.1\r\nHost: g\r\nContent-Length: 2\r\n\r\n{}";
  client.Send("GET /v1/models HTTP/1.1\r\nHost: g\r\n\r\n");
  EXPECT_THAT(client.ReadUntil("\r\n\r\n"), HasSubstr(" 200 "));
  TestServer other(EchoEngine);
  picker.script = {To({other.address().ToString()})};
  {
    const NoDescriptors none;
    client.Send(post);
    EXPECT_THAT(client.ReadUntil("}}"), HasSubstr(" 503 "));
  }
  client.Send(post);
  EXPECT_THAT(client.ReadUntil("{}"), HasSubstr(" 200 "));
  EXPECT_THAT(picker.asked.back().avoid, IsEmpty());
}

TEST_F(ForwarderTest, Gives503WithAnErrorObjectWhenAllRefuse) {
  picker.script = {To({NobodyThere()})};
  const http::Response answer = Post("{}");
  EXPECT_EQ(answer.head.status, 503);
  const auto body = json::Parse(answer.body);
  ASSERT_TRUE(body.ok());
  EXPECT_EQ((*body)["error"]["code"].AsInt(), 503);
  EXPECT_THAT((*body)["error"]["message"].AsString(), HasSubstr("no model server answered"));
}

TEST_F(ForwarderTest, RelaysARefusalWithReasonAndRetryAfter) {
  picker.script = {Refusal(429, "saturated", "rejected-saturated", 3)};
  const http::Response answer = Post("{}");
  EXPECT_EQ(answer.head.status, 429);
  EXPECT_EQ(answer.head.headers.Get("retry-after"), "3");
  EXPECT_EQ(answer.head.headers.Get("x-llm-d-request-dropped-reason"), "rejected-saturated");
  EXPECT_THAT(answer.body, HasSubstr("\"type\":\"rate_limit_error\""));
}

TEST_F(ForwarderTest, Gives503WhenThePickerCannotBeAsked) {
  picker.failure = Unavailable("picker is gone");
  const http::Response answer = Post("{}");
  EXPECT_EQ(answer.head.status, 503);
  EXPECT_THAT(answer.body, HasSubstr("picker is gone"));
}

TEST_F(ForwarderTest, TurnsACutStreamIntoAnErrorEventWithoutDone) {
  TestServer cut(CutEngine);
  picker.script = {To({cut.address().ToString()})};
  const http::Response answer = Post("{}");
  EXPECT_EQ(answer.head.status, 200);
  EXPECT_THAT(answer.body, testing::StartsWith("data: {\"half\":1}\n\ndata: {\"error\":"));
  EXPECT_THAT(answer.body, testing::Not(HasSubstr("[DONE]")));
}

TEST_F(ForwarderTest, AnEvictionMidStreamBecomesAnErrorEvent) {
  TestServer cut(CutEngine);
  picker.script = {To({cut.address().ToString()})};
  picker.evict_at_body = true;
  const http::Response answer = Post("{}");
  EXPECT_EQ(answer.head.status, 200);
  EXPECT_THAT(answer.body, testing::StartsWith("data: {\"error\":"));
  EXPECT_THAT(answer.body, HasSubstr("request evicted by flow control"));
  EXPECT_THAT(answer.body, HasSubstr("\"code\":429"));
  EXPECT_EQ(EndedPicks(1), 1);
}

TEST_F(ForwarderTest, AnEvictionBeforeTheAnswerIsA429AndNoOtherEndpointIsTried) {
  picker.script = {To({EngineAddress(), EngineAddress()})};
  picker.evict_before_call = true;
  const http::Response answer = Post("{}");
  EXPECT_EQ(answer.head.status, 429);
  EXPECT_EQ(answer.head.headers.Get("retry-after"), "9");
  EXPECT_EQ(answer.head.headers.Get("x-llm-d-request-dropped-reason"), "evicted-priority");
  EXPECT_EQ(picker.asked.size(), 1u);
}

TEST(Ejections, EndByTimeOrBySuccess) {
  FakeClock clock;
  Ejections ejections(std::chrono::seconds(2), clock);
  ejections.Add("a");
  ejections.Add("b");
  EXPECT_THAT(ejections.Current(), ElementsAre("a", "b"));
  ejections.Clear("a");
  EXPECT_THAT(ejections.Current(), ElementsAre("b"));
  clock.Advance(std::chrono::seconds(2));
  EXPECT_THAT(ejections.Current(), IsEmpty());
}

TEST(PickerHeaders, LowersNamesKeepsRepeatsAndLeavesRoutingOut) {
  http::RequestHead head;
  head.method = "POST";
  head.target = "/v1/x?y=1";
  head.headers.Add("Host", "example");
  head.headers.Add("Cookie", "a");
  head.headers.Add("Cookie", "b");
  head.headers.Add("X-Gateway-Destination-Endpoint", "evil:1");
  EXPECT_THAT(
      PickerHeaders(head),
      ElementsAre(Pair(":method", "POST"), Pair(":path", "/v1/x?y=1"), Pair(":scheme", "http"),
                  Pair(":authority", "example"), Pair("cookie", "a"), Pair("cookie", "b")));
}

}  // namespace
}  // namespace llmd::gateway
