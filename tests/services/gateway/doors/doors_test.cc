#include "gateway/doors/doors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "doors_fixture.h"

namespace llmd::doors {
namespace {

using std::chrono::seconds;
using ::testing::HasSubstr;
using ::testing::Not;

using DoorsTest = DoorsFixture;

TEST_F(DoorsTest, AreOpenWithoutKeys) {
  Open();
  const Admission& a = Ask("m", "whatever");
  EXPECT_EQ(a.verdict, Verdict::kForward);
  EXPECT_EQ(a.route, Route::kCompletion);
  EXPECT_EQ(a.model, "m");
  EXPECT_EQ(a.target_model, "m");
  EXPECT_FALSE(a.key);
  EXPECT_TRUE(a.request_edits().empty());
  EXPECT_TRUE(a.response_edits().empty());
}

TEST_F(DoorsTest, AskForAKey) {
  AddKey("k1", "secret");
  Open();
  const Admission& none = Ask("m", "");
  EXPECT_EQ(none.verdict, Verdict::kRefuse);
  EXPECT_EQ(none.refusal.status, 401);
  EXPECT_EQ(none.refusal.code, "missing_api_key");
  EXPECT_EQ(EditOf(none.response_edits(), "www-authenticate"), "Bearer");
  EXPECT_EQ(Ask("m", "wrong").refusal.code, "invalid_api_key");
  EXPECT_EQ(Ask("m", "secret").verdict, Verdict::kForward);
  EXPECT_EQ(Ask("m", "secret").key->record.id, "k1");
  EXPECT_TRUE(Counted("llmd_gateway_auth_failures_total{reason=\"missing\"} 1.0"));
  EXPECT_TRUE(Counted("llmd_gateway_auth_failures_total{reason=\"unknown\"} 1.0"));
  EXPECT_TRUE(Counted("llmd_gateway_tenant_requests_total{tenant=\"acme\"} 2.0"));
  EXPECT_EQ(Knock("GET", "/v1/models", {}).refusal.status, 401);
  EXPECT_EQ(Knock("GET", "/health", {}).verdict, Verdict::kOwn);
  EXPECT_EQ(Knock("GET", "/metrics", {}).verdict, Verdict::kOwn);
}

TEST_F(DoorsTest, AnswerAnthropicsClientInItsShape) {
  AddKey("k1", "secret");
  Open();
  std::string body;
  Knock("POST", "/v1/messages", {}, "{}").AppendBody(body);
  EXPECT_THAT(body, HasSubstr(R"({"type":"error","error":{)"));
  EXPECT_THAT(body, HasSubstr(R"("type":"authentication_error")"));
  EXPECT_EQ(Knock("POST", "/v1/messages", {{"x-api-key", "secret"}}, R"({"model":"m"})").verdict,
            Verdict::kForward);
}

TEST_F(DoorsTest, AnExpiredKeyIsToldSo) {
  AddKey("k1", "secret",
         [&](KeyRecord& k) { k.expires_unix_s = clock_.UnixNanos() / 1'000'000'000 + 60; });
  AddKey("k2", "other", [](KeyRecord& k) { k.disabled = true; });
  Open();
  EXPECT_EQ(Ask("m", "secret").verdict, Verdict::kForward);
  clock_.Advance(seconds(60));
  EXPECT_EQ(Ask("m", "secret").refusal.code, "expired_api_key");
  EXPECT_EQ(Ask("m", "other").refusal.code, "invalid_api_key");
}

TEST_F(DoorsTest, AKeyUsesItsModelsOnly) {
  AddKey("k1", "secret", [](KeyRecord& k) { k.models = {"llama-*"}; });
  Open();
  EXPECT_EQ(Ask("llama-3", "secret").verdict, Verdict::kForward);
  const Admission& other = Ask("gpt", "secret");
  EXPECT_EQ(other.refusal.status, 403);
  EXPECT_EQ(other.refusal.code, "model_not_allowed");
  EXPECT_EQ(other.refusal.param, "model");
  EXPECT_THAT(other.refusal.message, HasSubstr("'gpt'"));
  EXPECT_TRUE(Counted("llmd_gateway_auth_failures_total{reason=\"model_not_allowed\"} 1.0"));
  // Nor by a body that says two things, or nothing.
  const TestLines lines = {{"x-api-key", "secret"}};
  EXPECT_EQ(
      Knock("POST", "/v1/completions", lines, R"({"model":"gpt","model":"llama-3"})").refusal.code,
      "ambiguous_model");
  EXPECT_EQ(Knock("POST", "/v1/completions", lines, R"({"prompt":"x"})").refusal.code,
            "missing_model");
  EXPECT_EQ(Knock("POST", "/v1/completions", lines, R"({"model":["llama-3"]})").refusal.code,
            "missing_model");
  EXPECT_EQ(Knock("POST", "/tokenize", lines, "not json").refusal.code, "missing_model");
  EXPECT_EQ(Knock("POST", "/v1/completions", lines, R"({"model":"\u006clama-3"})").model,
            "llama-3");
}

TEST_F(DoorsTest, TheClientsKeyStopsHere) {
  AddKey("k1", "secret");
  options_.engine_key_file = folder_.Write("engine", "engine-secret\n");
  Open();
  const Admission& a = Ask("m", "secret", {{"x-api-key", "x"}});
  ASSERT_EQ(a.verdict, Verdict::kForward);
  EXPECT_EQ(EditOf(a.request_edits(), "authorization"), "Bearer engine-secret");
  EXPECT_EQ(EditOf(a.request_edits(), "x-api-key"), "-");
  EXPECT_EQ(*doors_->engine_key(), "Bearer engine-secret");
}

TEST_F(DoorsTest, WithoutAnEnginesKeyNothingIsSent) {
  AddKey("k1", "secret");
  Open();
  EXPECT_EQ(EditOf(Ask("m", "secret").request_edits(), "authorization"), "-");
}

TEST_F(DoorsTest, TheEnginesKeyIsCheckedAndFollowed) {
  for (const char* text : {"", "\n", "a b", "a\nb", "\xff"}) {
    options_.engine_key_file = folder_.Write("engine", text);
    EXPECT_THAT(Doors::Create(options_, logger_, registry_, clock_).status().message(),
                HasSubstr("--engine-api-key-file"))
        << text;
  }
  options_.engine_key_file = folder_.Write("engine", "one");
  Open();
  EXPECT_EQ(EditOf(Ask("m", "").request_edits(), "authorization"), "Bearer one");
  folder_.Write("engine", "two\n");
  EXPECT_TRUE(Eventually([&] { return *doors_->engine_key() == "Bearer two"; }));
  EXPECT_EQ(EditOf(Ask("m", "").request_edits(), "authorization"), "Bearer two");
}

TEST_F(DoorsTest, FollowTheFileOfKeys) {
  AddKey("k1", "one");
  Open();
  EXPECT_EQ(Ask("m", "two").refusal.status, 401);
  AddKey("k2", "two");
  EXPECT_TRUE(Eventually([&] { return Ask("m", "two").verdict == Verdict::kForward; }));
  folder_.Write("keys.yaml", "keys: [");
  EXPECT_TRUE(Eventually([&] { return Counted("{file=\"keys\",result=\"failure\"} 1.0"); }));
  EXPECT_EQ(Ask("m", "two").verdict, Verdict::kForward);
  bool told = false;
  for (const json::Value& line : log_->Lines())
    told |= line["msg"].AsString() == "file not taken, keeping what was before";
  EXPECT_TRUE(told);
  EXPECT_FALSE(doors_->Reload().ok());
  folder_.Write("keys.yaml", "keys: []");
  EXPECT_TRUE(Eventually([&] { return Ask("m", "two").refusal.status == 401; }));
}

TEST_F(DoorsTest, ABadFileAtTheStartIsAnError) {
  options_.keys_file = folder_.Write("keys.yaml", "keys:\n- {id: k}\n");
  const Status status = Doors::Create(options_, logger_, registry_, clock_).status();
  EXPECT_THAT(status.message(), HasSubstr("--api-keys-file"));
  EXPECT_THAT(status.message(), HasSubstr("line 2: keys[0].sha256"));
  options_.keys_file = folder_.Path("missing");
  EXPECT_FALSE(Doors::Create(options_, logger_, registry_, clock_).ok());
}

TEST_F(DoorsTest, CountRequestsAMinute) {
  AddKey("k1", "secret", [](KeyRecord& k) { k.requests_per_minute = 2; });
  Open();
  const Admission& first = Ask("m", "secret");
  EXPECT_EQ(EditOf(first.response_edits(), "x-ratelimit-limit-requests"), "2");
  EXPECT_EQ(EditOf(first.response_edits(), "x-ratelimit-remaining-requests"), "1");
  EXPECT_EQ(EditOf(first.response_edits(), "x-ratelimit-reset-requests"), "30s");
  EXPECT_EQ(EditOf(first.response_edits(), "retry-after"), "");
  EXPECT_EQ(Ask("m", "secret").verdict, Verdict::kForward);
  const Admission& third = Ask("m", "secret");
  EXPECT_EQ(third.refusal.status, 429);
  EXPECT_EQ(third.refusal.code, "rate_limit_exceeded");
  EXPECT_EQ(third.refusal.retry_after_s, 30);
  EXPECT_EQ(EditOf(third.response_edits(), "retry-after"), "30");
  EXPECT_EQ(EditOf(third.response_edits(), "x-ratelimit-remaining-requests"), "0");
  EXPECT_EQ(EditOf(third.response_edits(), "x-ratelimit-reset-requests"), "1m0s");
  EXPECT_TRUE(Counted("llmd_gateway_ratelimited_total{limit=\"requests\",tenant=\"acme\"} 1.0") ||
              Counted("llmd_gateway_ratelimited_total{tenant=\"acme\",limit=\"requests\"} 1.0"));
  // The list of models costs nothing, once there is one: until then an engine answers.
  EXPECT_EQ(Knock("GET", "/v1/models", {{"x-api-key", "secret"}}).refusal.status, 429);
  Serve("a", R"({"data":[{"id":"m"}]})");
  EXPECT_EQ(Knock("GET", "/v1/models", {{"x-api-key", "secret"}}).verdict, Verdict::kOwn);
  clock_.Advance(seconds(30));
  EXPECT_EQ(Ask("m", "secret").verdict, Verdict::kForward);
}

TEST_F(DoorsTest, CountTokensAMinuteAndSettleThem) {
  AddKey("k1", "secret", [](KeyRecord& k) { k.tokens_per_minute = 100; });
  Open();
  Admission& a = Ask("m", "secret");  // 51 bytes / 4 + 10
  const int64_t estimate = static_cast<int64_t>(body_.size() / 4) + 10;
  EXPECT_EQ(EditOf(a.response_edits(), "x-ratelimit-remaining-tokens"),
            std::to_string(100 - estimate));
  EXPECT_EQ(EditOf(a.response_edits(), "x-ratelimit-limit-requests"), "");
  doors_->Settle(a, {true, 5}, clock_.Now());
  doors_->Settle(a, {true, 1000}, clock_.Now());  // once
  const auto budget = a.key->budget;
  EXPECT_EQ(budget->tokens.Look(clock_.Now()).remaining, 95);
  // One that was not answered costs nothing; one whose usage nobody told, what it was taken for.
  doors_->Settle(Ask("m", "secret"), {false, 50}, clock_.Now());
  EXPECT_EQ(budget->tokens.Look(clock_.Now()).remaining, 95);
  doors_->Settle(Ask("m", "secret"), {true, -1}, clock_.Now());
  EXPECT_EQ(budget->tokens.Look(clock_.Now()).remaining, 95 - estimate);
  // An answer longer than was thought is paid for, by later requests.
  doors_->Settle(Ask("m", "secret"), {true, 400}, clock_.Now());
  const Admission& refused = Ask("m", "secret");
  EXPECT_EQ(refused.refusal.status, 429);
  EXPECT_THAT(refused.refusal.message, HasSubstr("tokens"));
  EXPECT_GT(refused.refusal.retry_after_s, 60);
  EXPECT_TRUE(Counted("llmd_gateway_tenant_tokens_total{tenant=\"acme\"}"));
}

TEST_F(DoorsTest, AnEstimateAloneShutsNobodyOut) {
  AddKey("k1", "secret", [](KeyRecord& k) { k.tokens_per_minute = 5; });
  Open();
  Admission& a = Ask("m", "secret");
  EXPECT_EQ(a.verdict, Verdict::kForward);
  doors_->Settle(a, {true, 1}, clock_.Now());
  EXPECT_EQ(a.key->budget->tokens.Look(clock_.Now()).remaining, 4);
}

TEST_F(DoorsTest, AKeySaysHowItsRequestsAreTreated) {
  AddKey("plain", "plain-secret");
  AddKey("k1", "secret", [](KeyRecord& k) {
    k.priority = -5;
    k.objective = "batch";
    k.fairness_id = "flow";
  });
  AddKey("boss", "boss-secret", [](KeyRecord& k) {
    k.trusted = true;
    k.objective = "chat";
  });
  Open();
  const TestLines own = {{"x-llm-d-inference-fairness-id", "mine"},
                         {"X-LLM-D-Inference-Objective", "top"},
                         {"x-slo-ttft-ms", "1"},
                         {"x-prefiller-host-port", "evil:1"}};
  const Admission& a = Ask("m", "secret", own);
  EXPECT_EQ(a.priority, -5);
  EXPECT_EQ(EditOf(a.request_edits(), "x-llm-d-inference-fairness-id"), "flow");
  EXPECT_EQ(EditOf(a.request_edits(), "x-llm-d-inference-objective"), "batch");
  EXPECT_EQ(EditOf(a.request_edits(), "x-slo-ttft-ms"), "-");
  EXPECT_EQ(EditOf(a.request_edits(), "x-prefiller-host-port"), "-");
  const Admission& plain = Ask("m", "plain-secret", own);
  EXPECT_FALSE(plain.priority);
  EXPECT_EQ(EditOf(plain.request_edits(), "x-llm-d-inference-fairness-id"), "acme");
  EXPECT_EQ(EditOf(plain.request_edits(), "x-llm-d-inference-objective"), "-");
  const Admission& boss = Ask("m", "boss-secret", own);
  EXPECT_TRUE(boss.trusted);
  EXPECT_EQ(EditOf(boss.request_edits(), "x-llm-d-inference-fairness-id"), "");
  EXPECT_EQ(EditOf(boss.request_edits(), "x-llm-d-inference-objective"), "");
  EXPECT_EQ(EditOf(boss.request_edits(), "x-prefiller-host-port"), "");
  EXPECT_EQ(EditOf(Ask("m", "boss-secret").request_edits(), "x-llm-d-inference-objective"), "chat");
}

TEST_F(DoorsTest, TrustAddressesBehindProxies) {
  options_.trusted_cidrs = {"10.1.0.0/16"};
  options_.trusted_proxies = {"10.9.0.0/16"};
  Open();
  const TestLines lines = {{"x-llm-d-inference-objective", "top"}, {"x-forwarded-for", "10.1.2.3"}};
  EXPECT_TRUE(Knock("GET", "/health", lines, {}, "10.9.0.1").trusted);
  EXPECT_TRUE(admission_.peer_is_proxy);
  EXPECT_EQ(admission_.client, Ip("10.1.2.3"));
  EXPECT_FALSE(Knock("POST", "/v1/completions", lines, "{}", "10.2.0.1").trusted);
  EXPECT_EQ(EditOf(admission_.request_edits(), "x-llm-d-inference-objective"), "-");
  EXPECT_EQ(EditOf(Knock("POST", "/v1/completions", lines, "{}", "10.1.0.1").request_edits(),
                   "x-llm-d-inference-objective"),
            "");
}

TEST_F(DoorsTest, WithoutTrustToGiveOnlyDestinationsAreTaken) {
  Open();
  const TestLines lines = {{"x-llm-d-inference-objective", "top"},
                           {"X-Gateway-Destination-Endpoint", "evil:1"},
                           {"x-gateway-destination-endpoint", "evil:2"}};
  Knock("POST", "/v1/completions", lines, "{}");
  ASSERT_EQ(admission_.request_edits().size(), 1u);
  EXPECT_EQ(EditOf(admission_.request_edits(), "x-gateway-destination-endpoint"), "-");
}

TEST_F(DoorsTest, UnknownModelsAreToldOnceAllIsKnown) {
  Open();
  EXPECT_EQ(Ask("nobody", "").verdict, Verdict::kForward);
  Serve("a", R"({"data":[{"id":"base"},{"id":"lora","parent":"base"}]})");
  EXPECT_EQ(Ask("base", "").verdict, Verdict::kForward);
  ASSERT_NE(admission_.known, nullptr);
  EXPECT_EQ(admission_.known->engines[0].second, "a");
  EXPECT_EQ(Ask("lora", "").verdict, Verdict::kForward);
  const Admission& a = Ask("nobody", "");
  EXPECT_EQ(a.refusal.status, 404);
  EXPECT_EQ(a.refusal.code, "model_not_found");
  EXPECT_EQ(a.known, nullptr);
  EXPECT_TRUE(Counted("llmd_gateway_door_refusals_total{reason=\"unknown_model\"} 1.0"));
  // What is no JSON, or names no model, is for those behind to refuse.
  EXPECT_EQ(Knock("POST", "/v1/completions", {}, "{").verdict, Verdict::kForward);
  EXPECT_EQ(Knock("POST", "/v1/completions", {}, "{}").verdict, Verdict::kForward);
  options_.refuse_unknown_models = false;
  Open();
  Serve("a", R"({"data":[{"id":"base"}]})");
  EXPECT_EQ(Ask("nobody", "").verdict, Verdict::kForward);
}

TEST_F(DoorsTest, ListModels) {
  AddKey("k1", "secret", [](KeyRecord& k) { k.models = {"base", "alias"}; });
  options_.routes.endpoints_files = {
      {"", folder_.Write("e.yaml",
                         "routes: [{name: r, models: [alias, 'x*'], targets: [{model: base}]}]")}};
  Open();
  Serve("a", R"({"data":[{"id":"base","created":3,"owned_by":"vllm"},)"
             R"({"id":"lora","parent":"base","max_model_len":9}]})");
  const TestLines lines = {{"x-api-key", "secret"}};
  EXPECT_EQ(doors_->ModelsBody(Knock("GET", "/v1/models", lines)),
            R"({"object":"list","data":[{"id":"alias","object":"model","created":0,)"
            R"("owned_by":"llmd"},{"id":"base","object":"model","created":3,"owned_by":"vllm"}]})");
  std::string out;
  EXPECT_TRUE(doors_->ModelBody("/v1/models/base", admission_, out));
  EXPECT_THAT(out, HasSubstr(R"("id":"base")"));
  EXPECT_FALSE(doors_->ModelBody("/v1/models/lora", admission_, out));
  EXPECT_EQ(admission_.refusal.status, 404);
  admission_.Clear();
  EXPECT_THAT(doors_->ModelsBody(admission_),
              HasSubstr(R"({"id":"lora","object":"model","created":0,"owned_by":"llmd",)"
                        R"("parent":"base","max_model_len":9})"));
}

TEST_F(DoorsTest, RoutesRewriteAndAreFollowed) {
  const std::string path = folder_.Write(
      "e.yaml", "endpoints: []\nroutes: [{name: r, models: [alias], targets: [{model: base}]}]");
  options_.routes.endpoints_files = {{"", path}};
  Open();
  const Admission& a = Ask("alias", "", {{"x-gateway-model-name-rewrite", ""}});
  EXPECT_EQ(a.verdict, Verdict::kForward);
  EXPECT_TRUE(a.rewritten());
  EXPECT_EQ(a.model, "alias");
  EXPECT_EQ(a.target_model, "base");
  EXPECT_EQ(a.route_name, "r");
  EXPECT_EQ(EditOf(a.request_edits(), "x-llm-d-model-name-rewrite"), "base");
  EXPECT_EQ(a.body_model.value.In(body_), "\"alias\"");
  Serve("a", R"({"data":[{"id":"base"}]})");
  EXPECT_EQ(Ask("alias", "").verdict, Verdict::kForward);
  EXPECT_TRUE(Counted("route=\"r\"") && Counted("llmd_gateway_route_decisions_total{"));
  EXPECT_TRUE(Counted("llmd_gateway_models 1.0"));
  EXPECT_TRUE(Counted("llmd_gateway_engines_without_models{pool=\"\"} 0.0"));
  EXPECT_EQ(
      Knock("POST", "/v1/completions", {}, R"({"model":"alias","model":"alias"})").refusal.code,
      "ambiguous_model");
  EXPECT_EQ(Knock("POST", "/v1/completions", {}, R"({"model":"base","model":"base"})").verdict,
            Verdict::kForward);
  folder_.Write("e.yaml", "routes: [{name: r, models: [alias], targets: [{model: gone}]}]");
  EXPECT_TRUE(Eventually([&] { return Ask("alias", "").refusal.status == 404; }));
  EXPECT_THAT(admission_.refusal.message, HasSubstr("'alias'"));
  folder_.Write("e.yaml", "routes: 7");
  EXPECT_TRUE(Eventually([&] { return Counted("{file=\"routes\",result=\"failure\"} 1.0"); }));
  EXPECT_EQ(Ask("alias", "").target_model, "gone");
}

TEST_F(DoorsTest, DisagreeingCopiesPassWhereTheNameDecidesNothing) {
  Open();
  EXPECT_EQ(Knock("POST", "/v1/completions", {}, R"({"model":"a","model":"b"})").verdict,
            Verdict::kForward);
  EXPECT_EQ(admission_.model, "b");
}

TEST_F(DoorsTest, ARouteWithPoolsNamesThePool) {
  options_.routes.pools_file = folder_.Write("pools.yaml", R"(apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerPools
pools:
- {name: chat, configFile: chat.yaml, models: ["llama-*"]}
- {name: code, configFile: code.yaml}
routes: [{name: r, models: [coder], targets: [{pool: code}]}]
)");
  Open();
  EXPECT_EQ(Ask("llama-3", "").pool, "chat");
  EXPECT_EQ(Ask("coder", "").pool, "code");
  EXPECT_FALSE(admission_.rewritten());
  EXPECT_EQ(EditOf(admission_.request_edits(), "x-llm-d-pool"), "code");
  Serve("a", R"({"data":[{"id":"llama-3"}]})", "chat");
  EXPECT_EQ(Ask("llama-4", "").refusal.status, 404);
  EXPECT_EQ(Ask("llama-3", "").verdict, Verdict::kForward);
  EXPECT_EQ(Ask("coder", "").verdict, Verdict::kForward);  // of that pool nobody has told yet
}

TEST_F(DoorsTest, TrustedClientsAskForAnotherModel) {
  AddKey("boss", "boss-secret", [](KeyRecord& k) {
    k.trusted = true;
    k.models = {"a", "b"};
  });
  AddKey("k1", "secret");
  Open();
  EXPECT_EQ(Ask("a", "boss-secret", {{"x-llm-d-model-name-rewrite", "b"}}).target_model, "b");
  EXPECT_EQ(Ask("a", "boss-secret", {{"x-llm-d-model-name-rewrite", "c"}}).refusal.code,
            "model_not_allowed");
  EXPECT_EQ(Ask("a", "secret", {{"x-llm-d-model-name-rewrite", "b"}}).target_model, "a");
  EXPECT_EQ(EditOf(admission_.request_edits(), "x-llm-d-model-name-rewrite"), "-");
}

TEST_F(DoorsTest, PathsAreCheckedFirst) {
  AddKey("k1", "secret");
  Open();
  const Admission& a = Knock("GET", "/nothing?x=1", {});
  EXPECT_EQ(a.refusal.status, 404);
  EXPECT_THAT(a.refusal.message, HasSubstr("'/nothing'"));
  EXPECT_EQ(Knock("GET", "/v1/..%2fx", {}).refusal.code, "invalid_path");
  const Admission& wrong = Knock("GET", "/v1/completions", {});
  EXPECT_EQ(wrong.refusal.status, 405);
  EXPECT_EQ(EditOf(wrong.response_edits(), "allow"), "POST, OPTIONS");
  EXPECT_TRUE(Counted("llmd_gateway_door_refusals_total{reason=\"path\"} 3.0"));
  EXPECT_EQ(Knock("POST", "/v1/completions?stream=1", {{"x-api-key", "secret"}}, "{}").verdict,
            Verdict::kForward);
}

TEST_F(DoorsTest, OptionsIsAnsweredHere) {
  AddKey("k1", "secret");
  options_.cors.origins = {"https://a.example"};
  Open();
  const Admission& plain = Knock("OPTIONS", "/v1/completions", {});
  EXPECT_EQ(plain.verdict, Verdict::kAnswer);
  EXPECT_EQ(plain.status, 204);
  EXPECT_EQ(EditOf(plain.response_edits(), "allow"), "POST, OPTIONS");
  const TestLines preflight = {{"Origin", "https://a.example"},
                               {"Access-Control-Request-Method", "POST"}};
  const Admission& yes = Knock("OPTIONS", "/v1/completions", preflight);
  EXPECT_EQ(yes.verdict, Verdict::kAnswer);
  EXPECT_EQ(EditOf(yes.response_edits(), "access-control-allow-methods"), "POST, OPTIONS");
  const Admission& no =
      Knock("OPTIONS", "/v1/completions",
            {{"Origin", "https://b.example"}, {"Access-Control-Request-Method", "POST"}});
  EXPECT_EQ(no.refusal.code, "origin_not_allowed");
  EXPECT_EQ(EditOf(no.response_edits(), "vary"), "Origin");
  EXPECT_EQ(EditOf(no.response_edits(), "access-control-allow-origin"), "-");
  // A page reads its refusals too.
  const Admission& refused =
      Knock("POST", "/v1/completions", {{"Origin", "https://a.example"}}, "{}");
  EXPECT_EQ(refused.refusal.status, 401);
  EXPECT_EQ(EditOf(refused.response_edits(), "access-control-allow-origin"), "https://a.example");
}

TEST_F(DoorsTest, EnginesGiveNoPageLeave) {
  Open();
  const TestLines page = {{"Origin", "https://a.example"}};
  EXPECT_EQ(EditOf(Knock("POST", "/v1/completions", page, "{}").response_edits(),
                   "access-control-allow-origin"),
            "-");
  options_.cors.origins = {"*"};
  Open();
  EXPECT_EQ(EditOf(Knock("POST", "/v1/completions", page, "{}").response_edits(),
                   "access-control-allow-origin"),
            "*");
  EXPECT_EQ(EditOf(admission_.response_edits(), "access-control-allow-credentials"), "-");
  EXPECT_TRUE(Knock("POST", "/v1/completions", {}, "{}").response_edits().empty());
}

TEST_F(DoorsTest, WrongOptionsAreNamed) {
  const auto error = [&] {
    return Doors::Create(options_, logger_, registry_, clock_).status().message();
  };
  options_.trusted_cidrs = {"10.0.0.1/8"};
  EXPECT_THAT(error(), HasSubstr("--trusted-cidrs: '10.0.0.1/8'"));
  options_.trusted_cidrs.clear();
  options_.trusted_proxies = {"x"};
  EXPECT_THAT(error(), HasSubstr("--trusted-proxies: 'x'"));
  options_.trusted_proxies.clear();
  options_.all_clients.connections = 0;
  EXPECT_THAT(error(), HasSubstr("at least 1"));
}

TEST_F(DoorsTest, SecretsAreInNoLogAndNoMetric) {
  AddKey("k1", "top-secret-value");
  options_.engine_key_file = folder_.Write("engine", "engine-secret-value");
  Open();
  Ask("m", "top-secret-value");
  Ask("m", "wrong-secret-value");
  std::string all = registry_.Expose() + admission_.refusal.message;
  for (const json::Value& line : log_->Lines()) all += line.Dump();
  EXPECT_THAT(all, Not(HasSubstr("secret-value")));
}

}  // namespace
}  // namespace llmd::doors
