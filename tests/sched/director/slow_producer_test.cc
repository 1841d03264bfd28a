// Requests whose producers must wait: prompts rendered by an engine. And requests that want to be
// served from the cache or not at all.
#include "llmd/sched/config_loader.h"
#include "sched/director_support.h"

namespace llmd::sched {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

// Keeps posts until they are answered.
class RenderingEngine final : public Fetch {
 public:
  struct Call {
    std::string url, body;
    Duration timeout{};
    std::function<void(StatusOr<std::string>)> done;
  };
  void Get(const EndpointInfo&, const PageSpec&, Duration,
           std::function<void(StatusOr<std::string>)> done) override {
    done(Unavailable("no pages here"));
  }
  void Post(const std::string& url, std::string body, Duration timeout,
            std::function<void(StatusOr<std::string>)> done) override {
    Call call{url, std::move(body), timeout, std::move(done)};
    if (answer.empty()) {
      calls.push_back(std::move(call));
    } else {
      call.done(answer);
    }
  }
  std::vector<Call> calls;
  std::string answer;  // given at once when set
};

class Rendered : public DirectorFixture {
 protected:
  void StartRendering(const std::string& scorer = "{type: context-length-aware}") {
    fetch_ = engine_;
    Start(Two(), {"{type: token-producer, parameters: {modelName: base, vllm: {url: "
                  "'http://render:9/', timeout: 2s, mmTimeout: 20s}}}",
                  scorer});
  }
  // Routes and keeps the answer; `routed_` counts them.
  void Ask(const std::string& body, const std::string& path = "/v1/completions") {
    body_ = body;
    headers_ = {{":path", path}};
    RequestInput input;
    input.headers = &headers_;
    input.body = body_;
    input.state = &state_;
    director_->Route(std::move(input), [this](Routing r) {
      routing_ = std::move(r);
      ++routed_;
    });
  }
  RenderingEngine::Call Take() {
    EXPECT_EQ(engine_->calls.size(), 1u);
    RenderingEngine::Call call = std::move(engine_->calls.at(0));
    engine_->calls.clear();
    return call;
  }
  std::shared_ptr<RenderingEngine> engine_ = std::make_shared<RenderingEngine>();
  std::shared_ptr<RequestState> state_;
  Routing routing_;
  int routed_ = 0;
};

TEST_F(Rendered, TheRequestWaitsForItsTokens) {
  StartRendering();
  Ask(R"({"model":"m","prompt":"hello"})");
  EXPECT_EQ(routed_, 0);
  const RenderingEngine::Call call = Take();
  EXPECT_EQ(call.url, "http://render:9/v1/completions/render");
  EXPECT_EQ(call.timeout, std::chrono::seconds(2));
  const StatusOr<json::Value> sent = json::Parse(call.body);
  ASSERT_TRUE(sent.ok());
  EXPECT_EQ((*sent)["model"].AsString(), "base");
  EXPECT_EQ((*sent)["prompt"].AsString(), "hello");
  call.done(std::string(R"([{"token_ids":[1,2,3]}])"));
  EXPECT_EQ(routed_, 1);
  EXPECT_TRUE(routing_.ok);
}

TEST_F(Rendered, ChatsGoToTheirOwnPathAndMediaMayTakeLonger) {
  StartRendering();
  Ask(R"({"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"u"}}]}]})",
      "/v1/chat/completions");
  const RenderingEngine::Call call = Take();
  EXPECT_EQ(call.url, "http://render:9/v1/chat/completions/render");
  EXPECT_EQ(call.timeout, std::chrono::seconds(20));
  call.done(std::string(
      R"({"token_ids":[1,2],"features":{"mm_hashes":{"image":["h"]},"mm_placeholders":{"image":[{"offset":0,"length":2}]}}})"));
  EXPECT_TRUE(routing_.ok);
}

// The tokens that the load of the first endpoint grows by.
class Estimated : public Rendered {
 protected:
  void Begin() {
    StartRendering("{type: token-load-scorer, parameters: {queueThresholdTokens: 1000}}");
  }
  double Tokens() const {
    return (1 - routing_.trace->profiles.at(0).scores.at(0).raw.at(0)) * 1000;
  }
  size_t Said(const std::string& message) const {
    const std::vector<std::string> said = Messages();
    return static_cast<size_t>(std::count(said.begin(), said.end(), message));
  }
  std::string Count(const std::string& reason, int n) const {
    return "llm_d_epp_prompts_not_rendered_total{plugin_name=\"token-producer\",reason=\"" +
           reason + "\"} " + std::to_string(n);
  }
};

TEST_F(Estimated, WhatCannotBeRenderedIsEstimated) {
  Begin();
  const std::string text(400, 'x');
  Ask(R"({"model":"m","max_tokens":1,"messages":[{"role":"user","content":")" + text + "\"}]}",
      "/v1/messages");
  EXPECT_GE(Tokens(), 100);
  director_->Cancel(state_);
  Ask(R"({"model":"m","input":")" + text + "\"}", "/v1/responses");
  EXPECT_GE(Tokens(), 100);
  EXPECT_THAT(engine_->calls, IsEmpty());
  EXPECT_THAT(metrics_.Expose(), HasSubstr(Count("api", 2)));
}

TEST_F(Estimated, WithoutARendererPromptsAreEstimatedAndOneLineSaysSo) {
  Begin();
  const std::string body = R"({"model":"m","prompt":")" + std::string(400, 'x') + "\"}";
  const auto ask = [&](StatusOr<std::string> answer) {
    Ask(body);
    Take().done(std::move(answer));
    director_->Cancel(state_);
    return Tokens();
  };
  constexpr char kSaid[] = "prompts are not rendered: their tokens are estimated";
  for (int i = 0; i < 3; ++i) EXPECT_NEAR(ask(Unavailable("down")), 100, 1e-6);
  EXPECT_EQ(Said(kSaid), 1u);
  EXPECT_NEAR(ask(std::string(R"({"token_ids":[1,2,3]})")), 3, 1e-6);
  EXPECT_EQ(Said("prompts are rendered again"), 1u);
  EXPECT_NEAR(ask(std::string("not json")), 100, 1e-6);
  EXPECT_EQ(Said(kSaid), 2u) << "another outage";
  EXPECT_THAT(metrics_.Expose(), HasSubstr(Count("failed", 4)));
}

TEST_F(Rendered, AFailureLetsTheRequestGoOn) {
  StartRendering();
  for (const StatusOr<std::string>& answer :
       {StatusOr<std::string>(Unavailable("down")), StatusOr<std::string>("not json"),
        StatusOr<std::string>("{}"), StatusOr<std::string>("[1]"),
        StatusOr<std::string>(R"({"token_ids":7})")}) {
    routed_ = 0;
    Ask(R"({"model":"m","prompt":"hello"})");
    Take().done(answer);
    EXPECT_EQ(routed_, 1);
    EXPECT_TRUE(routing_.ok);
  }
}

TEST_F(Rendered, TokensNeedNoRendering) {
  StartRendering();
  Ask(R"({"model":"m","prompt":[1,2]})");
  EXPECT_EQ(routed_, 1);
  Ask(R"({"model":"m","token_ids":[1,2]})", "/inference/v1/generate");
  EXPECT_EQ(routed_, 2);
  Ask(R"({"model":"m","input":"x"})", "/v1/responses");
  EXPECT_EQ(routed_, 3);
  EXPECT_THAT(engine_->calls, IsEmpty());
}

TEST_F(Rendered, AnAnswerInsideTheCallIsFine) {
  engine_->answer = R"({"token_ids":[1]})";
  StartRendering();
  Ask(R"({"model":"m","prompt":"hello"})");
  EXPECT_EQ(routed_, 1);
}

TEST_F(Rendered, LateAnswersFindADirectorThatStopped) {
  StartRendering();
  Ask(R"({"model":"m","prompt":"hello"})");
  const RenderingEngine::Call call = Take();
  director_->Stop();
  EXPECT_EQ(routed_, 1);
  EXPECT_EQ(routing_.denial.http_status, 503);
  EXPECT_EQ(routing_.denial.dropped_reason, "rejected-shutting-down");
  director_.reset();
  call.done(std::string(R"({"token_ids":[1]})"));
  EXPECT_EQ(routed_, 1);
}

// Whatever becomes of the call to the engine.
TEST_F(Rendered, APromptIsEstimatedWhenItsTimeIsOver) {
  options_.manual = true;
  fetch_ = engine_;
  options_.config_yaml =
      Config({"{type: token-producer, parameters: {modelName: base, vllm: {timeout: 2s}}}",
              "{type: context-length-aware}"}) +
      "dataLayer: {injectDefaults: false}\n";
  auto made = Director::Create(options_, fetch_, Logger(sink_, LogLevel::kDebug), metrics_, clock_);
  ASSERT_TRUE(made.ok()) << made.status().ToString();
  director_ = std::move(*made);
  EndpointInfo a;
  a.name = "a";
  a.address = "127.0.0.1";
  a.port = 1;
  ASSERT_TRUE(director_->SetEndpoints({a}).ok());
  Ask(R"({"model":"m","prompt":"hello"})");
  const TimePoint due = clock_.Now() + std::chrono::seconds(2);
  EXPECT_EQ(director_->Tick(clock_.Now()), due);
  EXPECT_EQ(routed_, 0);
  clock_.Advance(std::chrono::seconds(2));
  director_->Tick(due);
  ASSERT_EQ(routed_, 1);
  EXPECT_TRUE(routing_.ok);
  Take().done(std::string(R"({"token_ids":[1]})"));
  EXPECT_EQ(routed_, 1);
}

TEST_F(Rendered, RealTokensReachThePreciseIndex) {
  StartRendering(
      "{type: precise-prefix-cache-scorer, parameters: {speculativeIndexing: true, "
      "tokenProcessorConfig: {blockSizeTokens: 2}}}");
  std::vector<std::string> to;
  for (int i = 0; i < 6; ++i) {
    Ask(R"({"model":"m","prompt":"hello"})");
    Take().done(std::string(R"({"token_ids":[1,2,3,4]})"));
    to.push_back(routing_.endpoints.at(0));
  }
  for (const std::string& endpoint : to) EXPECT_EQ(endpoint, to[0]);
}

TEST(RenderParameters, ErrorsNameTheKey) {
  const std::pair<const char*, const char*> cases[] = {
      {"{vllm: {}}", "modelName"},
      {"{modelName: m, vllm: {url: 'ftp://x'}}", "expected http[s]://host:port"},
      {"{modelName: m, estimate: {}}", "either estimate or vllm"},
      {"{modelName: m, vllm: {grpc: x}}", "grpc"},
      {"{vllm: {timeout: soon}, modelName: m}", "timeout"}};
  for (const auto& [parameters, why] : cases) {
    const auto graph = LoadGraph(
        Config({std::string("{type: token-producer, parameters: ") + parameters + "}"}), {});
    ASSERT_FALSE(graph.ok()) << parameters;
    EXPECT_THAT(graph.status().message(), HasSubstr(why)) << parameters;
  }
}

class Conditional : public DirectorFixture {
 protected:
  int StatusOf(const std::string& prompt, const std::string& prefer) {
    const Routing r = Route(R"({"model":"m","prompt":")" + prompt + "\"}", {{"prefer", prefer}});
    message_ = r.denial.message;
    return r.ok ? 200 : r.denial.http_status;
  }
  std::string message_;
};

TEST_F(Conditional, WhatIsNotCachedIs412) {
  Start(Two(), {"{type: prefix-cache-scorer}"});
  const std::string prompt(600, 'x');
  EXPECT_EQ(StatusOf(prompt, "if-available"), 412);
  EXPECT_EQ(message_, "no decode worker has the requested KV cache");
  EXPECT_EQ(StatusOf(prompt, ""), 200);
  EXPECT_EQ(StatusOf(prompt, "if-available"), 200);
  EXPECT_EQ(StatusOf(prompt + "more", "respond-async, if-available"), 200) << "one block will do";
  EXPECT_EQ(StatusOf("other", "if-available"), 412);
  EXPECT_EQ(StatusOf("other", "if-available-soon"), 200);
}

TEST_F(Conditional, TheProducerThatTheScorerReadsIsAsked) {
  Start(Two(), {"{type: precise-prefix-cache-producer, parameters: {speculativeIndexing: true}}",
                "{type: approx-prefix-cache-producer}",
                "{type: prefix-cache-scorer, parameters: {prefixMatchInfoProducerName: "
                "precise-prefix-cache-producer}}"});
  const std::string prompt(200, 'x');  // three full precise blocks
  EXPECT_EQ(StatusOf(prompt, ""), 200);
  EXPECT_EQ(StatusOf(prompt, "if-available"), 200);
  clock_.Advance(std::chrono::seconds(2));  // the guess ends; the approximate one would go on
  EXPECT_EQ(StatusOf(prompt, "if-available"), 412);
}

TEST_F(Conditional, WithoutAnyProducerNothingIsKnownToBeCached) {
  Start(Two(), {"{type: queue-scorer}"});
  EXPECT_EQ(StatusOf("x", "if-available"), 412);
}

}  // namespace
}  // namespace llmd::sched
