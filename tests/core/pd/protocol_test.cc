#include "llmd/pd/protocol.h"

#include <gtest/gtest.h>

#include "llmd/json.h"

namespace llmd::pd {
namespace {

const std::string kAsk =
    R"("kv_transfer_params":{"do_remote_decode":true,"do_remote_prefill":false,"remote_engine_id":null,)"
    R"("remote_block_ids":null,"remote_host":null,"remote_port":null})";

std::string Join(LegBodies::Pieces pieces) {
  std::string out;
  for (std::string_view piece : pieces) out += piece;
  return out;
}

TEST(LegBodies, SayWhatTheSingleFunctionsSay) {
  const std::string params = R"({"remote_port":5557,"big":18446744073709551615})";
  for (const std::string body :
       {R"({"prompt":"<a&b>","seed":9007199254740993,"x":1.0})", R"({})",
        R"( { "stream":true , "kv_transfer_params" : {"evil":1}, "max_tokens":5,"n":3 } )",
        R"({"sampling_params":{"top_p":0.90}})"}) {
    auto bodies = LegBodies::Parse(body);
    ASSERT_TRUE(bodies.ok());
    for (const Api api : {Api::kChat, Api::kResponses, Api::kGenerate})
      EXPECT_EQ(Join(bodies->Prefill(api)), *PrefillBody(api, body));
    EXPECT_EQ(Join(bodies->Decode(params)), *DecodeBody(body, params));
    EXPECT_EQ(Join(bodies->Decode("")), *DecodeBody(body, ""));
    EXPECT_EQ(Join(bodies->Local()), LocalBody(body));
  }
  EXPECT_FALSE(LegBodies::Parse("[1]").ok());
}

TEST(LegBodies, ManyDoublesOfAKeyAreOnePiece) {
  std::string body = "{";
  for (int i = 0; i < 100; ++i) body += R"("stream":true,"a":1,)";
  body += R"("b":2})";
  auto bodies = LegBodies::Parse(body);
  ASSERT_TRUE(bodies.ok());
  const auto pieces = bodies->Prefill(Api::kChat);
  EXPECT_EQ(pieces.size(), 1u);
  EXPECT_EQ(Join(pieces), *PrefillBody(Api::kChat, body));
}

TEST(MayHoldParams, SeesTheKeyHoweverItIsSpelled) {
  EXPECT_FALSE(MayHoldParams(R"({"prompt":"kv_transfer\n","x":"\\v"})"));
  EXPECT_TRUE(MayHoldParams(R"({"kv_transfer_params":null})"));
  EXPECT_TRUE(MayHoldParams(R"({"k\u0076_transfer_params":null})"));
}

TEST(ApiOfPath, KnowsTheFivePaths) {
  EXPECT_EQ(ApiOfPath("/v1/completions"), Api::kCompletions);
  EXPECT_EQ(ApiOfPath("/v1/chat/completions"), Api::kChat);
  EXPECT_EQ(ApiOfPath("/v1/messages"), Api::kMessages);
  EXPECT_EQ(ApiOfPath("/v1/responses"), Api::kResponses);
  EXPECT_EQ(ApiOfPath("/inference/v1/generate"), Api::kGenerate);
  EXPECT_EQ(ApiOfPath("/v1/models"), std::nullopt);
  EXPECT_EQ(ApiOfPath("/v1/completions/"), std::nullopt);
}

TEST(PrefillBody, IsTheClientsBytesButForWhatPrefillNeeds) {
  const std::string limits = R"("max_tokens":1,"max_completion_tokens":1,"min_tokens":1})";
  const struct {
    Api api;
    std::string before, after;
  } cases[] = {
      {Api::kCompletions, R"({"prompt":"<a&b>","seed":9007199254740993,"x":1.0})",
       R"({"prompt":"<a&b>","seed":9007199254740993,"x":1.0,)" + kAsk + R"(,"stream":false,)" +
           limits},
      {Api::kChat,
       R"({"stream":true,"stream_options":{"include_usage":true},"max_tokens":50,"min_tokens":20,"n":2})",
       R"({"stream":false,"max_tokens":1,"min_tokens":1,"n":1,)" + kAsk +
           R"(,"max_completion_tokens":1})"},
      {Api::kCompletions, R"({"best_of":4,"n":4})",
       R"({"best_of":1,"n":1,)" + kAsk + R"(,"stream":false,)" + limits},
      {Api::kMessages, R"({"max_tokens":7})",
       R"({"max_tokens":1,)" + kAsk +
           R"(,"stream":false,"max_completion_tokens":1,"min_tokens":1})"},
      {Api::kResponses, R"({"input":"x","max_output_tokens":9})",
       R"({"input":"x","max_output_tokens":1,)" + kAsk + R"(,"stream":false})"},
      {Api::kGenerate, R"({"token_ids":[1,2]})",
       R"({"token_ids":[1,2],)" + kAsk +
           R"(,"stream":false,"sampling_params":{"max_tokens":1,"min_tokens":1}})"},
      {Api::kGenerate, R"({"sampling_params":{"top_p":0.90,"max_tokens":5,"n":3}})",
       R"({"sampling_params":{"top_p":0.90,"max_tokens":1,"n":1,"min_tokens":1},)" + kAsk +
           R"(,"stream":false})"},
      {Api::kGenerate, R"({"sampling_params":null})",
       R"({"sampling_params":{"max_tokens":1,"min_tokens":1},)" + kAsk + R"(,"stream":false})"},
      {Api::kResponses, R"({"kv_transfer_params":{"evil":1}})",
       "{" + kAsk + R"(,"stream":false,"max_output_tokens":1})"},
  };
  for (const auto& c : cases) {
    const auto body = PrefillBody(c.api, c.before);
    ASSERT_TRUE(body.ok()) << body.status().ToString();
    EXPECT_EQ(*body, c.after) << c.before;
  }
}

TEST(PrefillBody, RefusesWhatIsNoObject) {
  for (const char* bad : {"", "[1]", "{", "{\"a\":1,}"})
    EXPECT_FALSE(PrefillBody(Api::kChat, bad).ok()) << bad;
}

TEST(DecodeBody, KeepsEveryByteAndCarriesTheParamsVerbatim) {
  const std::string params =
      R"({"remote_block_ids":[[1,2]],"big":18446744073709551615,"r":1.0,"h":"<a&b>","e":1e400})";
  const struct {
    std::string before, after;
  } cases[] = {
      {R"({"seed": 9007199254740993, "stream" : true,"stream_options":{"include_usage":true},"max_tokens":"7"})",
       R"({"seed": 9007199254740993, "stream" : true,"stream_options":{"include_usage":true},"max_tokens":"7","kv_transfer_params":)" +
           params + "}"},
      {R"({"kv_transfer_params":{"evil":1},"z":1,"a":2})",
       R"({"kv_transfer_params":)" + params + R"(,"z":1,"a":2})"},
      {"{}", R"({"kv_transfer_params":)" + params + "}"},
  };
  for (const auto& c : cases) EXPECT_EQ(*DecodeBody(c.before, params), c.after);
  EXPECT_EQ(*DecodeBody(R"({"a":1})", ""), R"({"a":1,"kv_transfer_params":null})");
}

TEST(LocalBody, DropsOnlyTheClientsOwnParams) {
  EXPECT_EQ(LocalBody(R"({"a": 1, "kv_transfer_params":{"do_remote_prefill":true}})"),
            R"({"a": 1})");
  EXPECT_EQ(LocalBody(R"({"kv_transfer\u005fparams":{},"a":1})"), R"({"a":1})");
  EXPECT_EQ(LocalBody(R"({ "a" : 1 })"), R"({ "a" : 1 })");
  EXPECT_EQ(LocalBody("not json"), "not json");
}

TEST(ParsePrefillReply, FindsParamsAndCachedTokens) {
  const std::string reply =
      R"({"id":"x","usage":{"prompt_tokens_details":{"cached_tokens":48}}, "kv_transfer_params": {"p":1.0, "q":[[7]]} })";
  const auto parsed = ParsePrefillReply(reply);
  ASSERT_TRUE(parsed.ok());
  EXPECT_EQ(parsed->kv_transfer_params, R"({"p":1.0, "q":[[7]]})");
  EXPECT_EQ(parsed->cached_tokens, 48u);
}

TEST(ParsePrefillReply, MissingThingsAreEmptyOrZero) {
  for (const char* reply : {"{}", R"({"kv_transfer_params":null,"usage":null})",
                            R"({"usage":{"prompt_tokens_details":null}})"}) {
    const auto parsed = ParsePrefillReply(reply);
    ASSERT_TRUE(parsed.ok()) << reply;
    EXPECT_TRUE(parsed->kv_transfer_params.empty());
    EXPECT_EQ(parsed->cached_tokens, 0u);
  }
  EXPECT_FALSE(ParsePrefillReply("").ok());
  EXPECT_FALSE(ParsePrefillReply("<html>").ok());
}

TEST(ParsePrefillReply, HugeNumbersInParamsPass) {
  const auto parsed =
      ParsePrefillReply(R"({"kv_transfer_params":{"x":1e400,"y":9007199254740993}})");
  ASSERT_TRUE(parsed.ok()) << parsed.status().ToString();
  EXPECT_EQ(parsed->kv_transfer_params, R"({"x":1e400,"y":9007199254740993})");
}

TEST(ParseLender, NeedsEveryField) {
  const auto lender = ParseLender(
      R"({"remote_engine_id":"e","remote_host":"10.0.0.1","remote_port":5600,"remote_request_id":"r"})");
  ASSERT_TRUE(lender.has_value());
  EXPECT_EQ(lender->engine_id, "e");
  EXPECT_EQ(lender->host, "10.0.0.1");
  EXPECT_EQ(lender->port, 5600);
  EXPECT_EQ(lender->request_id, "r");
  EXPECT_EQ(
      ParseLender(
          R"({"remote_engine_id":"e","remote_host":"h","remote_port":"77","remote_request_id":"r"})")
          ->port,
      77);
  EXPECT_FALSE(ParseLender(
      R"({"remote_engine_id":"e","remote_host":"h","remote_port":70000,"remote_request_id":"r"})"));
  EXPECT_FALSE(ParseLender(R"({"remote_engine_id":"e","remote_host":"h","remote_port":5600})"));
  EXPECT_TRUE(ParseLender(
      R"({"x":1e400,"remote_engine_id":"e","remote_host":"h","remote_port":1,"remote_request_id":"r"})"));
  EXPECT_FALSE(ParseLender("null"));
}

TEST(PrefillCandidates, FollowsTheHeaderRules) {
  using List = std::vector<std::string>;
  const auto of = [](std::vector<std::string_view> lines,
                     std::optional<std::string_view> legacy = {}) {
    return PrefillCandidates(lines, legacy);
  };
  EXPECT_EQ(of({"a:1"}), (List{"a:1"}));
  EXPECT_EQ(of({" a:1 , http://b:2,"}), (List{"a:1", "b:2"}));
  EXPECT_EQ(of({",b:2"}), List{}) << "an empty first pick means decode only";
  EXPECT_EQ(of({""}), List{});
  EXPECT_EQ(of({"a:1,b:2", "c:3"}), (List{"a:1,b:2", "c:3"}))
      << "several lines are not split again";
  EXPECT_EQ(of({}, "http://p:8000"), (List{"p:8000"}));
  EXPECT_EQ(of({}, "prefill-svc:8000"), (List{"prefill-svc:8000"}));
  EXPECT_EQ(of({}, "http://p:8000/"), (List{"p:8000"}));
  EXPECT_EQ(of({"a:1"}, "http://p:8000"), (List{"a:1"}));
  EXPECT_EQ(of({}), List{});
}

TEST(PrefillAttempts, RetriesTheHostThenTheNextCandidate) {
  PrefillAttempts attempts(2, 1);
  const auto first = attempts.After(502);
  ASSERT_TRUE(first);
  EXPECT_EQ(first->candidate, 0u);
  EXPECT_TRUE(first->wait);
  const auto second = attempts.After(503);
  ASSERT_TRUE(second);
  EXPECT_EQ(second->candidate, 1u);
  EXPECT_FALSE(second->wait);
  EXPECT_TRUE(attempts.After(504)->wait);
  EXPECT_FALSE(attempts.After(504));
}

TEST(PrefillAttempts, OtherAnswersAreFinal) {
  for (int status : {200, 400, 404, 429, 500, 501})
    EXPECT_FALSE(PrefillAttempts(3, 5).After(status)) << status;
  EXPECT_FALSE(PrefillAttempts(1, 0).After(502));
}

TEST(FailurePolicy, ClientFaultsAreAlwaysRelayed) {
  EXPECT_FALSE(DecodesLocally(FailurePolicy::kRelay, 502));
  EXPECT_TRUE(DecodesLocally(FailurePolicy::kLocalDecode, 502));
  EXPECT_TRUE(DecodesLocally(FailurePolicy::kLocalDecode, 500));
  for (int status : {400, 404, 429, 451})
    EXPECT_FALSE(DecodesLocally(FailurePolicy::kLocalDecode, status));
  EXPECT_EQ(*ParseFailurePolicy("local-decode"), FailurePolicy::kLocalDecode);
  EXPECT_NE(ParseFailurePolicy("x").status().message().find("relay or local-decode"),
            std::string::npos);
}

TEST(ErrorBody, HasTheFieldsShape) {
  EXPECT_EQ(
      ErrorBody(400, "BadRequestError", "say \"no\""),
      R"({"object":"error","message":"say \"no\"","type":"BadRequestError","param":"","code":400})");
}

}  // namespace
}  // namespace llmd::pd
