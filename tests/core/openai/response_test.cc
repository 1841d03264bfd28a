#include "llmd/openai/response.h"

#include <gtest/gtest.h>

#include <limits>

#include "llmd/openai/stream.h"

namespace llmd::openai {
namespace {

const ReplyHead kHead{"cmpl-1", 1700000000, "m", "vllm-0-x"};

PositionLogprobs At(const std::string& token, float logprob, std::vector<TokenLogprob> top = {}) {
  return {{token, logprob, token, 7, 1}, std::move(top), true};
}

PositionLogprobs First(const std::string& token) {
  return {{token, 0, token, 0, 0}, {}, false};
}

TEST(CompletionBody, WritesNullsAndOrderAsVllm) {
  CompletionChoice choice;
  choice.text = "a\"b";
  choice.finish_reason = "length";
  EXPECT_EQ(CompletionBody(kHead, std::span(&choice, 1), {3, 2, std::nullopt}, nullptr),
            R"({"id":"cmpl-1","object":"text_completion","created":1700000000,"model":"m",)"
            R"("choices":[{"index":0,"text":"a\"b","logprobs":null,"finish_reason":"length",)"
            R"("stop_reason":null,"token_ids":null,"prompt_logprobs":null,"prompt_token_ids":null,)"
            R"("routed_experts":null}],"service_tier":null,"system_fingerprint":"vllm-0-x",)"
            R"("usage":{"prompt_tokens":3,"total_tokens":5,"completion_tokens":2,)"
            R"("prompt_tokens_details":null,"completion_tokens_details":null},)"
            R"("kv_transfer_params":null,"ec_transfer_params":null,"metrics":null})");
}

TEST(CompletionBody, CarriesTransferParametersAndCachedTokens) {
  CompletionChoice choice;
  const std::string body =
      CompletionBody(kHead, std::span(&choice, 1), {3, 2, 0}, json::Object{{"remote_host", "h"}});
  const auto parsed = json::Parse(body);
  ASSERT_TRUE(parsed.ok());
  EXPECT_EQ((*parsed)["kv_transfer_params"].Dump(), R"({"remote_host":"h"})");
  EXPECT_EQ((*parsed)["usage"]["prompt_tokens_details"].Dump(),
            R"({"cached_tokens":0,"created_cache_tokens":null,"multimodal_tokens":null})");
}

TEST(CompletionBody, LogprobsCountCharactersAndClampInfinity) {
  CompletionChoice choice;
  choice.text_offset = 4;
  choice.logprobs = {First("<s>"), At("é", -0.5F, {{"é", -0.5F, "", 7, 1}, {"b", -2.0F, "", 8, 2}}),
                     At("xy", -std::numeric_limits<float>::infinity())};
  const std::string body = CompletionBody(kHead, std::span(&choice, 1), {}, nullptr);
  EXPECT_NE(body.find(R"("logprobs":{"text_offset":[4,7,8],"token_logprobs":[null,-0.5,-9999.0],)"
                      R"("tokens":["<s>","é","xy"],)"
                      R"("top_logprobs":[null,{"é":-0.5,"b":-2.0},{"xy":-9999.0}]})"),
            std::string::npos)
      << body;
}

TEST(CompletionBody, PromptLogprobsAreKeyedById) {
  CompletionChoice choice;
  choice.prompt_logprobs = {First("<s>"),
                            At("a", -1.5F, {{"a", -1.5F, "", 7, 1}, {"b", -2.5F, "", 8, 2}})};
  const std::string body = CompletionBody(kHead, std::span(&choice, 1), {}, nullptr);
  EXPECT_NE(
      body.find(R"("prompt_logprobs":[null,{"7":{"logprob":-1.5,"rank":1,)"
                R"("decoded_token":"a"},"8":{"logprob":-2.5,"rank":2,"decoded_token":"b"}}])"),
      std::string::npos)
      << body;
}

TEST(ChatBody, WritesTheWholeMessage) {
  ChatChoice choice;
  choice.content = "hi";
  choice.finish_reason = "stop";
  choice.stop_reason = std::string("END");
  choice.logprobs = {At("hi", -0.25F, {{"hi", -0.25F, "hi", 7, 1}})};
  EXPECT_EQ(
      ChatBody(kHead, std::span(&choice, 1), {1, 1, std::nullopt}, {}),
      R"({"id":"cmpl-1","object":"chat.completion","created":1700000000,"model":"m","choices":[)"
      R"({"index":0,"message":{"role":"assistant","content":"hi","refusal":null,)"
      R"("annotations":null,"audio":null,"function_call":null,"reasoning":null},)"
      R"("logprobs":{"content":[{"token":"hi","logprob":-0.25,"bytes":[104,105],)"
      R"("top_logprobs":[{"token":"hi","logprob":-0.25,"bytes":[104,105]}]}]},)"
      R"("finish_reason":"stop","stop_reason":"END","token_ids":null}],)"
      R"("service_tier":null,"system_fingerprint":"vllm-0-x","usage":{"prompt_tokens":1,)"
      R"("total_tokens":2,"completion_tokens":1,"prompt_tokens_details":null,)"
      R"("completion_tokens_details":null},"prompt_logprobs":null,"prompt_token_ids":null,)"
      R"("prompt_text":null,"kv_transfer_params":null})");
}

TEST(ModelListBody, IsVllmsCard) {
  const ModelCard card{"m", "/models/m.gguf", std::nullopt, 5, 8192};
  EXPECT_EQ(ModelListBody(std::span(&card, 1)),
            R"({"object":"list","data":[{"id":"m","object":"model","created":5,"owned_by":"vllm",)"
            R"("root":"/models/m.gguf","parent":null,"max_model_len":8192,"permission":[{)"
            R"("id":"modelperm-m","object":"model_permission","created":5,)"
            R"("allow_create_engine":false,"allow_sampling":true,"allow_logprobs":true,)"
            R"("allow_search_indices":false,"allow_view":true,"allow_fine_tuning":false,)"
            R"("organization":"*","group":null,"is_blocking":false}]}]})");
}

TEST(TokenizeBody, ShowsStringsWhenAsked) {
  const std::vector<int32_t> ids = {1, 2};
  EXPECT_EQ(TokenizeBody(ids, 10, std::nullopt),
            R"({"count":2,"max_model_len":10,"tokens":[1,2],"token_strs":null})");
  EXPECT_EQ(TokenizeBody(ids, 10, std::vector<std::string>{"a", "Ġb"}),
            R"({"count":2,"max_model_len":10,"tokens":[1,2],"token_strs":["a","Ġb"]})");
  EXPECT_EQ(DetokenizeBody("x\n"), R"({"prompt":"x\n"})");
}

TEST(CompletionChunkWriter, WritesFrames) {
  const CompletionChunkWriter writer(kHead);
  CompletionChoice choice;
  choice.text = "a";
  std::string out;
  writer.Chunk(out, choice, nullptr, false);
  EXPECT_EQ(out,
            R"(data: {"id":"cmpl-1","object":"text_completion","created":1700000000,"model":"m",)"
            R"("choices":[{"index":0,"text":"a","logprobs":null,"finish_reason":null,)"
            R"("stop_reason":null,"prompt_token_ids":null,"token_ids":null}]})"
            "\n\n");
  out.clear();
  const Usage usage{1, 2, std::nullopt};
  choice.finish_reason = "stop";
  choice.stop_reason = 42;
  writer.Chunk(out, choice, &usage, true);
  EXPECT_NE(out.find(R"("finish_reason":"stop","stop_reason":42,)"), std::string::npos);
  EXPECT_TRUE(out.ends_with(R"(],"system_fingerprint":"vllm-0-x","usage":{"prompt_tokens":1,)"
                            R"("total_tokens":3,"completion_tokens":2}})"
                            "\n\n"))
      << out;
}

TEST(ChatChunkWriter, WritesRoleContentUsage) {
  const ChatChunkWriter writer(kHead);
  std::string out;
  writer.Role(out, 1, "assistant", std::nullopt, std::nullopt, nullptr);
  EXPECT_TRUE(out.ends_with(
      R"("choices":[{"index":1,"delta":{"role":"assistant","content":""},"logprobs":null,)"
      R"("finish_reason":null}],"prompt_token_ids":null,"prompt_text":null})"
      "\n\n"))
      << out;
  out.clear();
  ChatChoice choice;
  choice.content = "x";
  writer.Content(out, choice, nullptr, false);
  EXPECT_TRUE(out.ends_with(R"("choices":[{"index":0,"delta":{"content":"x"},"logprobs":null,)"
                            R"("finish_reason":null,"token_ids":null}]})"
                            "\n\n"))
      << out;
  out.clear();
  choice.finish_reason = "length";
  writer.Content(out, choice, nullptr, true);
  EXPECT_NE(out.find(R"("finish_reason":"length","stop_reason":null,)"), std::string::npos);
  EXPECT_NE(out.find("system_fingerprint"), std::string::npos);
  out.clear();
  writer.UsageChunk(out, {4, 1, 2});
  EXPECT_TRUE(out.ends_with(
      R"("choices":[],"usage":{"prompt_tokens":4,"total_tokens":5,"completion_tokens":1,)"
      R"("prompt_tokens_details":{"cached_tokens":2,"created_cache_tokens":null,)"
      R"("multimodal_tokens":null}}})"
      "\n\n"))
      << out;
}

TEST(Stream, EndsWithDoneAfterAnError) {
  std::string out;
  AppendErrorFrame(out, {500, "InternalServerError", "m", std::nullopt});
  AppendDone(out);
  EXPECT_EQ(out,
            "data: {\"error\":{\"message\":\"m\",\"type\":\"InternalServerError\",\"param\":null,"
            "\"code\":500}}\n\ndata: [DONE]\n\n");
}

}  // namespace
}  // namespace llmd::openai
