// The gateway in front of a scripted Director: what is sent, tried and refused.
#include "services/gateway/director_calls.h"

namespace llmd::gateway {
namespace {

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

}  // namespace
}  // namespace llmd::gateway
