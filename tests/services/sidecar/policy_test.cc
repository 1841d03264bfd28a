// The sidecar's decisions over scripted calls; tests/e2e/test_sidecar.py has the wire.
#include "sidecar/policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "llmd/http/routing_headers.h"
#include "llmd/metrics.h"
#include "services/sidecar/fake_call.h"

namespace llmd::sidecar {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;
using ::testing::Pair;
using ::testing::SizeIs;
using ::testing::StartsWith;

constexpr const char* kParams =
    R"({"remote_block_ids":[[3,4]],"remote_engine_id":"e-1","remote_host":"h","remote_port":5557,)"
    R"("remote_request_id":"r-1","big":18446744073709551615})";

class PolicyTest : public ::testing::Test {
 protected:
  PolicyTest() {
    options_.model_server_port = 9000;
    options_.prefill_retry_backoff = milliseconds(20);
    shared_.release = [this](pd::LenderAddress lender) { released_.push_back(lender.request_id); };
    shared_.look_up = [this](const http::HostPort& name) -> StatusOr<relay::Target> {
      looked_up_.push_back(name.host);
      if (name.host == "nowhere") return Unavailable("cannot resolve nowhere");
      return relay::Target::Parse("10.0.0.9:" + std::to_string(name.port));
    };
    shared_.look_up_on = [this](std::function<void()> job) {
      jobs_.push_back(std::move(job));
      return OkStatus();
    };
    shared_.scan = shared_.look_up_on;
  }

  // Every call ends.
  ~PolicyTest() override {
    RunJobs();
    for (size_t i = 0; policy_ && i < loop_.calls(); ++i) policy_->OnEnd(loop_.call(i), {});
  }

  void Start() { policy_ = std::make_unique<SidecarPolicy>(loop_, shared_); }
  // A request up to its first leg.
  FakeCall& Ask(std::string method, std::string target, Lines headers = {}, std::string body = "") {
    if (!policy_) Start();
    FakeCall& call =
        loop_.Make(std::move(method), std::move(target), std::move(headers), std::move(body));
    policy_->OnHead(call);
    if (!call.answered) policy_->OnRequest(call);
    return call;
  }
  FakeCall& Disaggregate(std::string candidates = "10.0.0.1:8000",
                         std::string body = R"({"max_tokens":7})") {
    return Ask("POST", "/v1/completions", {{"x-prefiller-host-port", std::move(candidates)}},
               std::move(body));
  }
  void Collected(FakeCall& call, int status, std::string_view body, Lines headers = {}) {
    const OwnedHead head(std::move(headers));
    policy_->OnCollected(call, {.status = status, .headers = head.view()}, body);
  }
  void Prefilled(FakeCall& call) {
    Collected(call, 200,
              R"({"usage":{"prompt_tokens_details":{"cached_tokens":32}},"kv_transfer_params":)" +
                  std::string(kParams) + "}");
  }
  void Head(FakeCall& call, int status, Lines headers = {{"Content-Type", "application/json"}}) {
    const OwnedHead head(std::move(headers));
    policy_->OnResponseHead(call, {.status = status, .headers = head.view()});
  }
  void Gone(FakeCall& call) { policy_->OnEnd(call, {.client_gone = true}); }
  void RunJobs() {
    for (const auto& job : std::exchange(jobs_, {})) job();
  }
  // The value of a series that is not there is 0.
  double Metric(const std::string& series) {
    const std::string page = "\n" + registry_.Expose();
    const size_t at = page.find("\n" + series + " ");
    return at == std::string::npos ? 0 : std::stod(page.substr(at + series.size() + 2));
  }
  double Requests(const std::string& path, int code) {
    return Metric("llmd_sidecar_requests_total{code=\"" + std::to_string(code) + "\",path=\"" +
                  path + "\"}");
  }
  double Legs(const std::string& leg, const std::string& outcome) {
    return Metric("llmd_sidecar_leg_seconds_count{leg=\"" + leg + "\",outcome=\"" + outcome +
                  "\"}");
  }

  MetricsRegistry registry_;
  SidecarMetrics metrics_{registry_};
  Options options_;
  MemoryLogSink lines_;
  Shared shared_{.options = options_,
                 .metrics = metrics_,
                 .observed = {metrics_.by_route},
                 .logger = Logger(std::make_shared<MemoryLogSink>(lines_), LogLevel::kInfo)};
  FakeLoop loop_;
  std::vector<std::function<void()>> jobs_;
  std::vector<std::string> released_, looked_up_;
  std::unique_ptr<SidecarPolicy> policy_;
};

TEST_F(PolicyTest, PassesThroughWithoutRoutingHeaders) {
  FakeCall& call = Ask("POST", "/tokenize", {{"X-Prefiller-Host-Port", "a:1"}}, "anything");
  ASSERT_THAT(call.sent, SizeIs(1));
  const SentLeg& leg = call.sent[0];
  EXPECT_EQ(leg.target.ToString(), "127.0.0.1:9000");
  EXPECT_FALSE(leg.own_body);
  EXPECT_THAT(leg.set, SizeIs(0));
  EXPECT_THAT(leg.removed, ElementsAreArray(http::kRoutingHeaders));
  Head(call, 404);
  EXPECT_EQ(call.forwarded, relay::BodyMode::kWatch);
  policy_->OnEnd(call, {.status = 404, .body_bytes = 12, .whole = true});
  EXPECT_EQ(Metric("llmd_sidecar_response_bytes_total"), 12);
  EXPECT_EQ(Requests("passthrough", 404), 1);
}

TEST_F(PolicyTest, BothLegsAreSplicedFromTheClientsBytes) {
  const std::string body = R"({"seed": 9007199254740993,"max_tokens":7,"x":1.0})";
  FakeCall& call = Disaggregate("10.0.0.1:8000", body);
  ASSERT_THAT(call.sent, SizeIs(1));
  EXPECT_EQ(call.sent[0].target.ToString(), "10.0.0.1:8000");
  EXPECT_EQ(call.sent[0].Body(), *pd::PrefillBody(pd::Api::kCompletions, body));
  EXPECT_EQ(call.sent[0].pieces[0].data(), call.body().data());
  EXPECT_THAT(call.sent[0].removed, Contains("Accept-Encoding"));
  EXPECT_THAT(call.sent[0].set, ElementsAre(Pair("x-request-id", SizeIs(36))));
  EXPECT_EQ(call.timer, options_.prefill_timeout);
  Prefilled(call);
  ASSERT_THAT(call.sent, SizeIs(2));
  EXPECT_EQ(call.timer, std::nullopt);
  EXPECT_EQ(call.sent[1].target.ToString(), "127.0.0.1:9000");
  EXPECT_EQ(call.sent[1].Body(), *pd::DecodeBody(body, kParams));
  EXPECT_EQ(call.sent[1].set, call.sent[0].set);
  EXPECT_EQ(call.sent[1].collect_bytes, 0u);
  Head(call, 200);
  EXPECT_EQ(call.forwarded, relay::BodyMode::kEdit);
  EXPECT_EQ(policy_->OnResponseBytes(call, R"({"usage":{"prompt_tokens_details":)", false).send,
            "");
  EXPECT_EQ(policy_->OnResponseBytes(call, R"({"cached_tokens":999}}})", true).send,
            R"({"usage":{"prompt_tokens_details":{"cached_tokens":32}}})");
  policy_->OnEnd(call, {.status = 200, .whole = true});
  EXPECT_THAT(released_, SizeIs(0));
}

TEST_F(PolicyTest, AGivenRequestIdStaysAndSeveralBecomeOne) {
  FakeCall& one = Ask("POST", "/v1/completions", {{"X-Request-Id", "abc"}}, "{}");
  EXPECT_THAT(one.sent.at(0).set, SizeIs(0));
  FakeCall& two =
      Ask("POST", "/v1/completions", {{"x-request-id", "abc"}, {"x-request-id", "def"}}, "{}");
  EXPECT_THAT(two.sent.at(0).set, ElementsAre(Pair("x-request-id", "abc")));
}

TEST_F(PolicyTest, ALongRequestIdIsShownInPart) {
  const std::string id(60'000, 'i');
  Ask("POST", "/v1/completions", {{"x-request-id", id}, {"x-prefiller-host-port", "10.0.0.1:1"}},
      "{}");
  ASSERT_FALSE(lines_.Lines().empty());
  for (const json::Value& line : lines_.Lines())
    EXPECT_EQ(line["x-request-id"].AsString(), std::string(128, 'i'));
}

TEST_F(PolicyTest, LocalBodiesLoseTheClientsParams) {
  FakeCall& plain = Ask("POST", "/v1/completions", {}, R"({"a": 1})");
  EXPECT_FALSE(plain.sent.at(0).own_body) << "goes on as it came";
  FakeCall& evil =
      Ask("POST", "/v1/completions", {}, R"({"a": 1, "k\u0076_transfer_params":{"x":1}})");
  EXPECT_EQ(evil.sent.at(0).Body(), R"({"a": 1})");
  FakeCall& broken = Ask("POST", "/v1/completions", {}, R"({"kv_transfer_params)");
  EXPECT_FALSE(broken.sent.at(0).own_body) << "the engine refuses it";
}

TEST_F(PolicyTest, BadCandidatesAndBodiesAre400) {
  for (const char* bad : {"10.0.0.1:80/evil?x=", "host", "a:b", "10.0.0.1:0", "u@h:80", "h:80 x"}) {
    FakeCall& call = Disaggregate(bad);
    EXPECT_EQ(call.answered, 400) << bad;
    EXPECT_THAT(call.answer_body, HasSubstr("x-prefiller-host-port: ")) << bad;
  }
  EXPECT_EQ(Disaggregate("10.0.0.1:1", "[1]").answered, 400);
  std::string many;
  for (size_t i = 0; i <= kMaxCandidates; ++i) many += "10.0.0.1:1,";
  FakeCall& call = Disaggregate(many);
  EXPECT_EQ(call.answered, 400);
  EXPECT_THAT(call.answer_body, HasSubstr("more than 64 prefillers"));
}

TEST_F(PolicyTest, RetriesAfterABackOffThenTheNextCandidate) {
  options_.prefill_max_retries = 1;
  FakeCall& call = Disaggregate("10.0.0.1:1,10.0.0.2:2");
  Collected(call, 503, "busy");
  EXPECT_EQ(call.timer, milliseconds(20));
  ASSERT_THAT(call.sent, SizeIs(1));
  policy_->OnTimer(call);
  ASSERT_THAT(call.sent, SizeIs(2));
  EXPECT_EQ(call.sent[1].target.ToString(), "10.0.0.1:1");
  policy_->OnFailure(call, relay::Failure::kReset, "closed");
  ASSERT_THAT(call.sent, SizeIs(3));
  EXPECT_EQ(call.sent[2].target.ToString(), "10.0.0.2:2");
  Prefilled(call);
  EXPECT_THAT(call.sent, SizeIs(4));
  EXPECT_EQ(Metric("llmd_sidecar_prefill_retries_total"), 2);
  EXPECT_EQ(Legs("prefill", "reset"), 1);
}

TEST_F(PolicyTest, APrefillersErrorIsRelayedWhole) {
  FakeCall& call = Disaggregate();
  Collected(call, 429, "mine",
            {{"Retry-After", "7"},
             {"Connection", "x-secret, close"},
             {"X-Secret", "1"},
             {"Content-Length", "4"},
             {"Transfer-Encoding", "chunked"},
             {"Set-Cookie", "a"},
             {"Set-Cookie", "b"}});
  EXPECT_EQ(call.answered, 429);
  EXPECT_EQ(call.answer_body, "mine");
  EXPECT_THAT(call.answer_headers, ElementsAre(Pair("Retry-After", "7"), Pair("Set-Cookie", "a"),
                                               Pair("Set-Cookie", "b")));
  EXPECT_THAT(call.sent, SizeIs(1));
}

TEST_F(PolicyTest, AFailedPrefillIsDecodedLocallyByPolicyOnly) {
  FakeCall& relayed = Disaggregate();
  policy_->OnFailure(relayed, relay::Failure::kRefused, "connection refused");
  EXPECT_EQ(relayed.answered, 502);
  options_.failure_policy = "local-decode";
  FakeCall& local = Disaggregate("10.0.0.1:1", R"({"a":1,"kv_transfer_params":3})");
  policy_->OnFailure(local, relay::Failure::kRefused, "connection refused");
  ASSERT_THAT(local.sent, SizeIs(2));
  EXPECT_EQ(local.sent[1].Body(), R"({"a":1})");
  FakeCall& own_fault = Disaggregate();
  Collected(own_fault, 429, "slow down");
  EXPECT_EQ(own_fault.answered, 429);
}

TEST_F(PolicyTest, ATricklingReplyEndsAtTheDeadline) {
  options_.prefill_max_retries = 1;
  FakeCall& call = Disaggregate();
  policy_->OnTimer(call);
  EXPECT_FALSE(call.answered);
  EXPECT_EQ(call.timer, milliseconds(20)) << "backs off";
  // What the leg that was given up says does not count, unless it is the reply after all.
  policy_->OnFailure(call, relay::Failure::kReset, "closed");
  policy_->OnTimer(call);
  ASSERT_THAT(call.sent, SizeIs(2));
  policy_->OnTimer(call);
  EXPECT_EQ(call.answered, 504);
  EXPECT_THAT(call.answer_body, HasSubstr("GatewayTimeout"));
}

TEST_F(PolicyTest, ClientsAreNotToldWhomWeAsked) {
  FakeCall& prefill = Disaggregate();
  policy_->OnFailure(prefill, relay::Failure::kRefused, "10.0.0.1:8000: connect: refused");
  EXPECT_THAT(prefill.answer_body, HasSubstr(R"("prefill leg: connect: refused")"));
  FakeCall& decode = Ask("POST", "/v1/completions", {}, "{}");
  policy_->OnFailure(decode, relay::Failure::kReset, "127.0.0.1:9000: closed");
  EXPECT_THAT(decode.answer_body, HasSubstr(R"("decode leg: closed")"));
  EXPECT_EQ(lines_.Lines().back()["err"].AsString(), "10.0.0.1:8000: connect: refused");
}

// Who stands in front may then try elsewhere.
TEST_F(PolicyTest, AnErrorSaysWhichLegFailedAndHow) {
  const auto says = [](const FakeCall& call) -> std::string {
    for (const auto& [name, value] : call.answer_headers) {
      if (name == "x-llmd-upstream-failure") return value;
    }
    return "";
  };
  for (const relay::Failure failure : {relay::Failure::kRefused, relay::Failure::kReset,
                                       relay::Failure::kTimeout, relay::Failure::kProtocol}) {
    FakeCall& passed = Ask("GET", "/v1/models", {}, "");
    policy_->OnFailure(passed, failure, "why");
    EXPECT_EQ(says(passed), relay::NameOf(failure));
    FakeCall& decode = Ask("POST", "/v1/completions", {}, "{}");
    policy_->OnFailure(decode, failure, "why");
    EXPECT_EQ(says(decode), relay::NameOf(failure));
    FakeCall& prefill = Disaggregate();
    policy_->OnFailure(prefill, failure, "why");
    EXPECT_EQ(says(prefill), "prefill");
  }
  FakeCall& ours = Ask("POST", "/v1/completions", {}, "{}");
  policy_->OnFailure(ours, relay::Failure::kOurs, "no descriptor");
  EXPECT_EQ(says(ours), "");
  EXPECT_EQ(says(Disaggregate("no host and port")), "");
}

TEST_F(PolicyTest, AReplyThatIsNoObjectIs400) {
  FakeCall& call = Disaggregate();
  Collected(call, 200, "<html>");
  EXPECT_EQ(call.answered, 400);
  EXPECT_THAT(call.sent, SizeIs(1));
}

TEST_F(PolicyTest, WithoutParamsTheEngineGetsNull) {
  FakeCall& call = Disaggregate();
  Collected(call, 200, "{}");
  EXPECT_EQ(call.sent.at(1).Body(), R"({"max_tokens":7,"kv_transfer_params":null})");
  Gone(call);
  EXPECT_THAT(released_, SizeIs(0)) << "nothing was lent";
  EXPECT_EQ(Metric("llmd_sidecar_missing_kv_transfer_params_total"), 1);
}

TEST_F(PolicyTest, LeasesAreGivenBackWhenDecodeDoesNotStart) {
  size_t expected = 0;
  for (int status : {400, 429, 503}) {
    FakeCall& call = Disaggregate();
    Prefilled(call);
    Head(call, status);
    EXPECT_TRUE(call.forwarded);
    policy_->OnEnd(call, {.status = status, .whole = true});
    EXPECT_THAT(released_, SizeIs(++expected)) << status;
  }
  for (auto [failure, answer] :
       {std::pair{relay::Failure::kRefused, 503}, std::pair{relay::Failure::kTimeout, 504},
        std::pair{relay::Failure::kReset, 502}, std::pair{relay::Failure::kOurs, 503}}) {
    FakeCall& call = Disaggregate();
    Prefilled(call);
    policy_->OnFailure(call, failure, "why");
    EXPECT_EQ(call.answered, answer);
    policy_->OnEnd(call, {.status = answer});
    EXPECT_THAT(released_, SizeIs(++expected)) << relay::NameOf(failure);
  }
  // The client leaves between the legs, or before the engine has answered.
  FakeCall& call = Disaggregate();
  Prefilled(call);
  Gone(call);
  EXPECT_THAT(released_, SizeIs(++expected));
  EXPECT_EQ(Requests("disaggregated", 0), 1);
  EXPECT_EQ(Legs("decode", "cancelled"), 1);
  // Once it has answered well, the lease is its affair.
  FakeCall& served = Disaggregate();
  Prefilled(served);
  Head(served, 200);
  policy_->OnEnd(served, {.status = 200, .client_gone = true});
  EXPECT_THAT(released_, SizeIs(expected));
  EXPECT_EQ(released_.front(), "r-1");
}

TEST_F(PolicyTest, AClientThatLeavesDuringPrefillIsCounted) {
  FakeCall& call = Disaggregate();
  Gone(call);
  EXPECT_EQ(Requests("disaggregated", 0), 1);
  EXPECT_EQ(Legs("prefill", "cancelled"), 1);
  EXPECT_THAT(released_, SizeIs(0));
}

TEST_F(PolicyTest, AnswersThatNeedNoRewritingPass) {
  for (const Lines& headers :
       {Lines{{"Content-Type", "text/plain"}}, Lines{},
        Lines{{"Content-Type", "application/json"}, {"Content-Encoding", "gzip"}}}) {
    FakeCall& call = Disaggregate();
    Prefilled(call);
    Head(call, 200, headers);
    EXPECT_EQ(call.forwarded, relay::BodyMode::kWatch);
  }
}

TEST_F(PolicyTest, NamesAreLookedUpByAWorkerAndKept) {
  FakeCall& call = Disaggregate("prefill.local:8000");
  EXPECT_THAT(call.sent, SizeIs(0));
  FakeCall& second = Disaggregate("prefill.local:8000");
  RunJobs();
  loop_.RunPosts();
  EXPECT_EQ(call.sent.at(0).target.ToString(), "10.0.0.9:8000");
  EXPECT_EQ(second.sent.at(0).target.ToString(), "10.0.0.9:8000");
  EXPECT_EQ(Disaggregate("prefill.local:8000").sent.at(0).target.ToString(), "10.0.0.9:8000");
  EXPECT_THAT(looked_up_, ElementsAre("prefill.local"));
}

TEST_F(PolicyTest, ANameThatIsNotFoundIs502AndTheNextCandidateIsAsked) {
  FakeCall& call = Disaggregate("nowhere:1");
  RunJobs();
  loop_.RunPosts();
  EXPECT_EQ(call.answered, 502);
  EXPECT_THAT(call.answer_body, HasSubstr("cannot resolve nowhere"));
  FakeCall& two = Disaggregate("nowhere:1,10.0.0.2:2");
  EXPECT_EQ(two.sent.at(0).target.ToString(), "10.0.0.2:2");
  FakeCall& late = Disaggregate("slow:1");
  EXPECT_EQ(late.timer, seconds(5));
  policy_->OnTimer(late);
  EXPECT_EQ(late.answered, 504);
  RunJobs();
  loop_.RunPosts();
  EXPECT_THAT(late.sent, SizeIs(0)) << "too late";
}

TEST_F(PolicyTest, LargeBodiesAreReadByAWorker) {
  const std::string body = R"({"prompt":")" + std::string(kScanOnWorkerBytes, 'x') + R"("})";
  FakeCall& call = Disaggregate("10.0.0.1:1", body);
  EXPECT_THAT(call.sent, SizeIs(0));
  RunJobs();
  loop_.RunPosts();
  EXPECT_EQ(call.sent.at(0).Body(), *pd::PrefillBody(pd::Api::kCompletions, body));
  FakeCall& bad = Disaggregate("10.0.0.1:1", body + "x");
  RunJobs();
  loop_.RunPosts();
  EXPECT_EQ(bad.answered, 400);
  FakeCall& late = Ask("POST", "/v1/completions", {}, body);
  policy_->OnTimer(late);
  EXPECT_EQ(late.answered, 503);
}

TEST_F(PolicyTest, ABodyStaysUntilItsReaderIsDone) {
  const std::string body = R"({"prompt":")" + std::string(kScanOnWorkerBytes, 'x') + R"("})";
  FakeCall& call = Disaggregate("10.0.0.1:1", body);
  Gone(call);
  EXPECT_TRUE(call.retained);
  policy_->OnTick();
  EXPECT_TRUE(call.retained);
  RunJobs();
  loop_.RunPosts();
  EXPECT_THAT(call.sent, SizeIs(0));
  policy_->OnTick();
  EXPECT_FALSE(call.retained);
}

TEST_F(PolicyTest, HealthNeedsNoEngineAndReadyAsksIt) {
  EXPECT_EQ(Ask("GET", "/health").answered, 200);
  FakeCall& ready = Ask("GET", "/ready");
  ASSERT_THAT(ready.sent, SizeIs(1));
  EXPECT_EQ(ready.sent[0].path, "/health");
  EXPECT_TRUE(ready.sent[0].own_headers);
  Collected(ready, 200, "");
  EXPECT_EQ(ready.answered, 200);
  EXPECT_EQ(ready.answer_body, R"({"status":"ready"})");
  FakeCall& not_yet = Ask("GET", "/ready");
  Collected(not_yet, 500, "");
  EXPECT_EQ(not_yet.answered, 503);
  EXPECT_THAT(not_yet.answer_body, HasSubstr("engine answers 500 on /health"));
  FakeCall& down = Ask("GET", "/ready");
  policy_->OnFailure(down, relay::Failure::kRefused, "connection refused");
  EXPECT_EQ(down.answered, 503);
  EXPECT_EQ(Requests("passthrough", 200) + Requests("passthrough", 503), 0);
}

TEST_F(PolicyTest, TheFirstLoopAsksUntilTheEngineHasAnsweredOnce) {
  loop_.SetIndex(0);
  Start();
  policy_->OnTick();
  ASSERT_EQ(loop_.calls(), 1u);
  policy_->OnTick();
  EXPECT_EQ(loop_.calls(), 1u) << "one at a time";
  policy_->OnFailure(loop_.call(0), relay::Failure::kRefused, "connection refused");
  EXPECT_TRUE(loop_.call(0).aborted);
  policy_->OnEnd(loop_.call(0), {});
  policy_->OnTick();
  EXPECT_EQ(loop_.calls(), 1u) << "once a second";
  loop_.Advance(seconds(1));
  policy_->OnTick();
  ASSERT_EQ(loop_.calls(), 2u);
  Collected(loop_.call(1), 200, "");
  policy_->OnEnd(loop_.call(1), {});
  loop_.Advance(seconds(5));
  policy_->OnTick();
  EXPECT_EQ(loop_.calls(), 2u);
  ASSERT_THAT(lines_.Lines(), SizeIs(2));
  EXPECT_EQ(lines_.Lines()[0]["msg"].AsString(), "waiting for vLLM to be ready");
  EXPECT_EQ(lines_.Lines()[1]["msg"].AsString(), "engine is ready");
}

TEST_F(PolicyTest, OtherLoopsLeaveTheEngineAlone) {
  Start();
  policy_->OnTick();
  EXPECT_EQ(loop_.calls(), 0u);
}

TEST_F(PolicyTest, RefusalsHaveTheShapeOfOurErrorsAndAreCounted) {
  Start();
  FakeCall& call = loop_.Make("", "", {}, "");
  policy_->OnRefused(call, {.status = 413, .message = "the body is larger than 5 bytes"});
  policy_->OnEnd(call, {.status = 413, .refused = true});
  EXPECT_EQ(call.answered, 413);
  EXPECT_THAT(call.answer_body, StartsWith(R"({"object":"error","message":"the body is)"));
  EXPECT_EQ(Requests("refused", 413), 1);
}

TEST_F(PolicyTest, ACutAnswerIsCutToo) {
  FakeCall& call = Ask("POST", "/v1/completions", {}, "{}");
  Head(call, 200, {{"Content-Type", "text/event-stream"}});
  EXPECT_EQ(policy_->OnCut(call, relay::Failure::kReset, "closed"), "");
  EXPECT_TRUE(call.aborted);
}

TEST_F(PolicyTest, AddressesShareOneTlsIdentityAndNamesHaveOneEach) {
  const auto first = *http::TlsContext::CreateClient({.verify = false});
  shared_.prefiller_tls = [first] { return first; };
  Start();
  const auto named = [this](const std::string& name) -> FakeCall& {
    FakeCall& call = Disaggregate(name + ":1");
    RunJobs();
    loop_.RunPosts();
    return call;
  };
  FakeCall& a = Disaggregate("10.0.0.1:1");
  EXPECT_EQ(a.sent.at(0).tls->host, "") << "the target's address";
  EXPECT_EQ(Disaggregate("10.0.0.2:1").sent.at(0).tls, a.sent.at(0).tls);
  FakeCall& b = named("b.local");
  EXPECT_EQ(b.sent.at(0).tls->host, "b.local");
  EXPECT_NE(named("c.local").sent.at(0).tls, b.sent.at(0).tls);
  EXPECT_EQ(named("b.local").sent.at(0).tls, b.sent.at(0).tls);

  const auto second = *http::TlsContext::CreateClient({.verify = false});
  shared_.prefiller_tls = [second] { return second; };
  policy_->OnTick();
  FakeCall& renewed = Disaggregate("10.0.0.1:1");
  EXPECT_NE(renewed.sent.at(0).tls, a.sent.at(0).tls);
  EXPECT_EQ(renewed.sent.at(0).tls->context, second);

  shared_.server_name = "prefillers";
  EXPECT_EQ(named("d.local").sent.at(0).tls->host, "prefillers");
}

TEST_F(PolicyTest, NamesOverTlsAreForgottenOnceNoLegUsesThem) {
  const auto context = *http::TlsContext::CreateClient({.verify = false});
  shared_.prefiller_tls = [context] { return context; };
  Start();
  std::vector<FakeCall*> calls;
  const auto ask = [&](size_t n) {
    calls.push_back(&Disaggregate("p" + std::to_string(n) + ".local:1"));
    RunJobs();
    loop_.RunPosts();
    return calls.back()->answered.value_or(0);
  };
  for (size_t i = 0; i < kMaxTlsHosts; ++i) EXPECT_EQ(ask(i), 0);
  EXPECT_EQ(ask(kMaxTlsHosts), 502) << "all of them are used";
  EXPECT_THAT(calls.back()->answer_body, HasSubstr("more than 1024 prefillers over TLS"));
  for (FakeCall* call : calls) call->sent.clear();
  for (size_t i = 2000; i < 2000 + 2 * kMaxTlsHosts; ++i) {
    EXPECT_EQ(ask(i), 0);
    calls.back()->sent.clear();
  }
}

}  // namespace
}  // namespace llmd::sidecar
