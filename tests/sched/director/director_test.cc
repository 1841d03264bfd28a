#include "llmd/sched/director.h"

#include "director/name_cap.h"
#include "llmd/sched/decision_tries.h"
#include "sched/director_support.h"

namespace llmd::sched {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Key;
using ::testing::Not;
using ::testing::Pair;
using ::testing::SizeIs;
using ::testing::UnorderedElementsAre;

constexpr char kBody[] = R"({"model":"m","prompt":"hello"})";

TEST_F(DirectorFixture, RoutesAndExplains) {
  Start(Two(), {"{type: queue-scorer}"});
  const Routing r = Route(kBody, {{"x-request-id", "id-1"}});
  ASSERT_TRUE(r.ok) << r.denial.message;
  EXPECT_EQ(r.endpoints.size(), 1u);
  EXPECT_EQ(r.request_id, "id-1");
  EXPECT_THAT(r.set_headers, Not(Contains(Key("x-request-id"))));
  EXPECT_THAT(r.body_edits, IsEmpty());
  ASSERT_NE(r.trace, nullptr);
  EXPECT_EQ(r.trace->addresses[r.trace->primary], r.endpoints[0]);
  EXPECT_THAT(*director_->Explain("id-1"), HasSubstr("queue-scorer"));
  EXPECT_FALSE(director_->Explain("id-2").ok());
}

TEST_F(DirectorFixture, ExplainsEveryTryOfARequestId) {
  Start(Two(), {"{type: queue-scorer}"});
  const HeaderList id = {{"x-request-id", "again"}};
  EXPECT_EQ(Route(kBody, id, {"9.9.9.9:1"}, true).denial.http_status, 503);
  const Routing routed = Route(kBody, id);
  EXPECT_EQ(Route(kBody, id, {"9.9.9.9:2"}, true).denial.http_status, 503);
  const json::Value shown = *json::Parse(*director_->Explain("again"));
  EXPECT_EQ(shown["denied_status"].AsInt(), 503) << "the last, as one decision was always shown";
  const auto tries = TriesFromJson(shown);
  ASSERT_TRUE(tries.ok()) << tries.status().ToString();
  ASSERT_EQ(tries->size(), 3u);
  EXPECT_EQ((*tries)[0].denied_status, 503);
  EXPECT_EQ((*tries)[1].denied_status, 0);
  EXPECT_EQ((*tries)[1].addresses[(*tries)[1].primary], routed.endpoints.at(0));
}

TEST_F(DirectorFixture, DeniesWithTheStatusOfTheCause) {
  options_.max_body_bytes = 1000;
  Start(Two(), {"{type: prefill-filter}"});
  EXPECT_EQ(Route("{\"model\":").denial.http_status, 400);
  EXPECT_EQ(Route("[1]").denial.http_status, 400);
  EXPECT_EQ(Route(R"({"model":5})").denial.http_status, 400);
  EXPECT_EQ(Route(R"({"prompt":"x"})").denial.message, "model not found in request body");
  EXPECT_EQ(Route(std::string(1001, ' ')).denial.http_status, 413);
  const Denial none = Route(kBody).denial;
  EXPECT_EQ(none.http_status, 503);
  EXPECT_EQ(none.dropped_reason, "rejected-no-endpoints");
  EXPECT_EQ(none.retry_after_s, 1);
  EXPECT_THAT(metrics_.Expose(), HasSubstr("llm_d_epp_request_error_total{"));
}

TEST_F(DirectorFixture, AnEmptyPoolIs503) {
  Start("", {"{type: queue-scorer}"});
  EXPECT_TRUE(director_->ready());
  EXPECT_EQ(Route(kBody).denial.http_status, 503);
}

TEST_F(DirectorFixture, SubsetsAreStrictAndComparePorts) {
  Start(Two(), {"{type: queue-scorer}"});
  for (int i = 0; i < 10; ++i)
    EXPECT_EQ(Route(kBody, {}, {"127.0.0.1:8002"}, true).endpoints[0], "127.0.0.1:8002");
  EXPECT_EQ(Route(kBody, {}, {"9.9.9.9:1, 127.0.0.1:8001"}, true).endpoints[0], "127.0.0.1:8001");
  EXPECT_EQ(Route(kBody, {}, {"127.0.0.1:9999"}, true).denial.http_status, 503);
  EXPECT_EQ(Route(kBody, {}, {}, true).denial.dropped_reason, "rejected-no-endpoints");
}

TEST_F(DirectorFixture, BodilessRequestsGoThroughTheProfile) {
  Start(
      "{name: p, address: 127.0.0.1, port: 1, labels: {llm-d.ai/role: prefill}}, "
      "{name: d, address: 127.0.0.1, port: 2, labels: {llm-d.ai/role: decode}}",
      {"{type: decode-filter}", "{type: prefix-cache-scorer}"});
  headers_ = {{":path", "/v1/models"}, {":method", "GET"}};
  RequestInput input;
  input.headers = &headers_;
  input.has_body = false;
  Routing r;
  director_->Route(std::move(input), [&](Routing got) { r = std::move(got); });
  ASSERT_TRUE(r.ok);
  EXPECT_THAT(r.endpoints, ElementsAre("127.0.0.1:2"));
}

TEST_F(DirectorFixture, StripsTheClientsControlHeadersAndParameters) {
  Start(Two(), {"{type: queue-scorer}"});
  const std::string body =
      R"({"kv_transfer_params":{"a":1},"model":"m","prompt":"x","kv_transfer_params":2})";
  const Routing r = Route(body, {{"x-prefiller-host-port", "evil:1"},
                                 {"x-prefiller-url", "u"},
                                 {"x-data-parallel-host-port", "e"},
                                 {"x-encoder-hosts-ports", "e"},
                                 {"x-kv-cache-source-host-port", "e"},
                                 {"x-gateway-destination-endpoint", "e"},
                                 {"x-other", "stays"}});
  ASSERT_TRUE(r.ok);
  EXPECT_THAT(
      r.remove_headers,
      UnorderedElementsAre("x-prefiller-host-port", "x-prefiller-url", "x-data-parallel-host-port",
                           "x-encoder-hosts-ports", "x-kv-cache-source-host-port",
                           "x-gateway-destination-endpoint"));
  EXPECT_EQ(Applied(body, r.body_edits), R"({"model":"m","prompt":"x"})");
}

TEST_F(DirectorFixture, OwnPrefillHeaderIsSetAndNotRemoved) {
  Start(
      "{name: p, address: 127.0.0.1, port: 1, labels: {llm-d.ai/role: prefill}}, "
      "{name: d, address: 127.0.0.1, port: 2, labels: {llm-d.ai/role: decode}}",
      {"{type: decode-filter}", "{type: prefill-filter}", "{type: always-disagg-pd-decider}",
       "{type: disagg-profile-handler, parameters: {deciders: {prefill: "
       "always-disagg-pd-decider}}}"},
      "schedulingProfiles: [{name: prefill, plugins: [{pluginRef: prefill-filter}]}, {name: "
      "decode, plugins: [{pluginRef: decode-filter}]}]");
  const Routing r = Route(kBody, {{"x-prefiller-host-port", "evil:1"}});
  EXPECT_THAT(r.set_headers, Contains(Pair("x-prefiller-host-port", "127.0.0.1:1")));
  EXPECT_THAT(r.remove_headers, IsEmpty());
  EXPECT_EQ(r.trace->decision_type, "prefill-decode");
}

TEST_F(DirectorFixture, RewritesTheModelByteForByteAndRestoresIt) {
  Start(Two(), {"{type: queue-scorer}"});
  const std::string body = R"({ "big": 12345678901234567890, "model" : "m", "prompt":"p"})";
  const Routing r = Route(body, {{"x-llm-d-model-name-rewrite", "tuned"}});
  EXPECT_EQ(Applied(body, r.body_edits),
            R"({ "big": 12345678901234567890, "model" : "tuned", "prompt":"p"})");
  std::string out;
  EXPECT_TRUE(director_->OnResponseBody(r.state, R"({"model":"tuned"})", true, &out));
  EXPECT_EQ(out, R"({"model":"m"})");
  const std::string missing = R"({"kv_transfer_params":1,"prompt":"p"})";
  EXPECT_EQ(Applied(missing, Route(missing, {{"x-gateway-model-name-rewrite", "t"}}).body_edits),
            R"({"model":"t","prompt":"p"})");
}

TEST_F(DirectorFixture, NoPathLetsTheClientsTransferParametersThrough) {
  Start(Two(), {"{type: queue-scorer}"});
  // What each path's parser asks for stands in it.
  const std::string kept =
      R"({"model":"m","prompt":"x","input":"x","text":"x","messages":[{"role":"user","content":"x"}])";
  const std::string body = kept + R"(,"kv_transfer_param\u0073":1,"kv_transfer_params":2})";
  for (const char* path : {"/v1/completions", "/v1/chat/completions", "/v1/chat/completions/",
                           "/v1/messages", "/v1/responses", "/v1/embeddings", "/v1/rerank",
                           "/v1/score", "/tokenize", "/inference/v1/generate", "/of/my/own"}) {
    const Routing r = Route(body, {{":path", path}});
    ASSERT_TRUE(r.ok) << path << ": " << r.denial.message;
    EXPECT_EQ(Applied(body, r.body_edits), kept + "}") << path;
  }
}

TEST_F(DirectorFixture, OneTraceparentOfTheSameTraceAndAnOwnRequestId) {
  Start(Two(), {"{type: queue-scorer}"});
  const std::string parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
  const Routing r = Route(kBody, {{"traceparent", parent}});
  const std::string ours(FindHeader(r.set_headers, "traceparent"));
  EXPECT_THAT(ours, HasSubstr("4bf92f3577b34da6a3ce929d0e0e4736"));
  EXPECT_THAT(ours, Not(HasSubstr("00f067aa0ba902b7")));
  EXPECT_EQ(FindHeader(r.set_headers, "x-request-id"), r.request_id);
  EXPECT_EQ(r.request_id.size(), 36u);
}

TEST_F(DirectorFixture, CountsUsageOncePerAnswerAndEndsInFlight) {
  Start(Two(), {"{type: active-request-scorer}"});
  const Routing r = Route(kBody);
  EXPECT_TRUE(director_->wants_response_body());
  director_->OnResponseHeaders(r.state, 200, {{"content-type", "text/event-stream"}});
  const std::string sse =
      "data: {\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":1}}\n\n"
      "data: "
      "{\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":9,\"prompt_tokens_details\":{\"cached_"
      "tokens\":4}}}\n\n";
  for (size_t i = 0; i < sse.size(); i += 5) {
    std::string out;
    EXPECT_FALSE(director_->OnResponseBody(r.state, std::string_view(sse).substr(i, 5),
                                           i + 5 >= sse.size(), &out));
  }
  const std::string page = metrics_.Expose();
  EXPECT_THAT(page, HasSubstr("llm_d_epp_request_output_tokens_sum{fairness_id=\"default-flow\","
                              "model_name=\"m\",priority=\"0\",target_model_name=\"m\"} 9.0"));
  EXPECT_THAT(page, HasSubstr("llm_d_epp_request_output_tokens_count{fairness_id=\"default-flow\","
                              "model_name=\"m\",priority=\"0\",target_model_name=\"m\"} 1.0"));
  EXPECT_THAT(page, HasSubstr("llm_d_epp_request_running{fairness_id=\"default-flow\",model_name="
                              "\"m\",priority=\"0\",target_model_name=\"m\"} 0.0"));
  EXPECT_THAT(page, HasSubstr("inference_objective_request_total"));
  const Routing next = Route(kBody);
  EXPECT_THAT(next.trace->profiles[0].scores[0].raw, ::testing::Each(1.0));
}

TEST_F(DirectorFixture, CancelledAndDroppedRequestsEndTheirAccounting) {
  Start("{name: a, address: 127.0.0.1, port: 8001}",
        {"{type: concurrency-detector, parameters: {maxConcurrency: 1}}"},
        "schedulingProfiles: [{name: p, plugins: [{pluginRef: concurrency-detector}]}]");
  Routing first = Route(kBody, {{"x-request-id", "same"}});
  ASSERT_TRUE(first.ok);
  EXPECT_EQ(Route(kBody, {{"x-request-id", "same"}}).denial.http_status, 429);
  director_->Cancel(first.state);
  director_->Cancel(first.state);
  Routing second = Route(kBody, {{"x-request-id", "same"}});
  ASSERT_TRUE(second.ok);
  second = {};  // the last reference goes
  EXPECT_TRUE(Route(kBody).ok);
}

TEST_F(DirectorFixture, SessionTokenIsEchoedAndEndpointScoresEmitted) {
  options_.emit_endpoint_scores = true;
  Start(Two(), {"{type: session-affinity-scorer}"});
  const Routing r = Route(kBody, {{"x-session-token", "ZGVmYXVsdC9i"}});
  EXPECT_THAT(r.endpoints, ElementsAre("127.0.0.1:8002"));
  EXPECT_THAT(r.scores, ElementsAre(Pair("127.0.0.1:8001", 0.0), Pair("127.0.0.1:8002", 1.0)));
  EXPECT_THAT(director_->OnResponseHeaders(r.state, 200, {}),
              Contains(Pair("x-session-token", "ZGVmYXVsdC9i")));
}

TEST_F(DirectorFixture, EndpointScoresAreThoseOfTheDecodeProfile) {
  options_.emit_endpoint_scores = true;
  const auto ep = [](const char* name, int port, const char* role) {
    return "{name: " + std::string(name) + ", address: 127.0.0.1, port: " + std::to_string(port) +
           ", labels: {llm-d.ai/role: " + role + "}}";
  };
  Start(ep("a", 8001, "both") + ", " + ep("b", 8002, "prefill-decode") + ", " +
            ep("c", 8003, "both") + ", " + ep("d", 8004, "decode"),
        {"{type: disagg-profile-handler, parameters: {deciders: {prefill: "
         "always-disagg-pd-decider}}}",
         "{type: always-disagg-pd-decider}", "{type: decode-filter}", "{type: prefill-filter}",
         "{type: queue-scorer}"},
        "schedulingProfiles: [{name: decode, plugins: [{pluginRef: decode-filter}, {pluginRef: "
        "queue-scorer}]}, {name: prefill, plugins: [{pluginRef: prefill-filter}, {pluginRef: "
        "queue-scorer}]}]");
  for (int i = 0; i < 20; ++i) {
    const Routing r = Route(kBody);
    ASSERT_TRUE(r.ok) << r.denial.message;
    EXPECT_THAT(r.scores, UnorderedElementsAre(Key("127.0.0.1:8001"), Key("127.0.0.1:8002"),
                                               Key("127.0.0.1:8003"), Key("127.0.0.1:8004")));
  }
}

TEST_F(DirectorFixture, LongIdsAreKeptShort) {
  Start(Two(), {"{type: queue-scorer}"}, "", LogLevel::kDefault);
  const std::string id(60'000, 'i');
  const Routing r = Route(kBody, {{"x-request-id", id}, {"x-llm-d-inference-fairness-id", id}});
  ASSERT_TRUE(r.ok) << r.denial.message;
  EXPECT_EQ(r.request_id.size(), kMaxRequestIdBytes);
  EXPECT_THAT(r.set_headers, Not(Contains(Key("x-request-id"))));
  EXPECT_TRUE(director_->Explain(id).ok());
  EXPECT_TRUE(director_->Explain(r.request_id).ok());
  EXPECT_FALSE(director_->Explain(id + "i").ok());
  size_t logged = 0;
  for (const json::Value& line : sink_->Lines()) logged += line.Dump().size();
  EXPECT_LT(logged, 10'000u);
}

TEST_F(DirectorFixture, AnEmptyPoolIsReadyAndAnswers) {
  Start("", {"{type: queue-scorer}"});
  EXPECT_TRUE(director_->ready());
  const Routing r = Route(kBody);
  EXPECT_EQ(r.denial.http_status, 503);
  EXPECT_EQ(r.denial.dropped_reason, "rejected-no-endpoints");
}

TEST_F(DirectorFixture, AnEmptyPoolWithFlowControlQueuesUntilAnEndpointComes) {
  Start("", {"{type: concurrency-detector}", "{name: p, type: queue-scorer}"},
        "schedulingProfiles: [{name: p}]\nfeatureGates: [flowControl]\n"
        "flowControl: {saturationDetector: {pluginRef: concurrency-detector}}");
  EXPECT_TRUE(director_->ready());
  const HeaderList headers = {{":path", "/v1/completions"}};
  RequestInput input;
  input.headers = &headers;
  input.body = kBody;
  std::shared_ptr<RequestState> state;
  input.state = &state;
  const Answers answers;
  director_->Route(std::move(input), answers.To("it"));
  EXPECT_THAT(answers.Names(), IsEmpty()) << "waits: " << answers.At(0).denial.message;
  director_->Cancel(state);
  EXPECT_THAT(answers.Names(1), SizeIs(1));
}

TEST_F(DirectorFixture, FlowControlQueuesAndDispatchesOnCompletion) {
  Start("{name: a, address: 127.0.0.1, port: 8001}",
        {"{type: concurrency-detector, parameters: {maxConcurrency: 1}}"},
        "schedulingProfiles: [{name: p}]\nfeatureGates: [flowControl]\n"
        "flowControl: {saturationDetector: {pluginRef: concurrency-detector}, priorityBands: "
        "[{priority: 0, maxRequests: 1}]}");
  Routing first = Route(kBody);
  ASSERT_TRUE(first.ok);
  const HeaderList headers = {{":path", "/v1/completions"}};
  const Answers answers;
  const auto ask = [&](const char* name) {
    std::shared_ptr<RequestState> state;
    RequestInput input;
    input.headers = &headers;
    input.body = kBody;
    input.state = &state;
    director_->Route(std::move(input), answers.To(name));
    return state;
  };
  ask("waiting");
  EXPECT_THAT(answers.Names(), IsEmpty());
  ask("refused");
  EXPECT_THAT(answers.Names(1), ElementsAre("refused"));
  EXPECT_EQ(answers.At(0).denial.http_status, 429);
  director_->Cancel(first.state);
  EXPECT_THAT(answers.Names(2), ElementsAre("refused", "waiting"));
  EXPECT_TRUE(answers.At(1).ok);
  const std::shared_ptr<RequestState> queued = ask("cancelled");
  EXPECT_THAT(answers.Names(), SizeIs(2));
  director_->Cancel(queued);
  EXPECT_THAT(answers.Names(3), SizeIs(3));
  EXPECT_EQ(answers.At(2).denial.dropped_reason, "rejected-context-cancelled");
}

}  // namespace
}  // namespace llmd::sched
