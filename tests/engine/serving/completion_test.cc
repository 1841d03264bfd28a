#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/serving/fake_engine.h"

namespace llmd::engine::serving {
namespace {

using testing::ElementsAre;

TEST(Completion, AnswersWhole) {
  Bench bench;
  auto reply = bench.Complete(R"({"prompt":"abc","max_tokens":"5"})");
  ASSERT_TRUE(reply.ok());
  const Request& request = bench.engine.submitted.at("cmpl-r-0");
  EXPECT_EQ(request.prompt, (std::vector<TokenId>{'a', 'b', 'c'}));
  EXPECT_EQ(request.sampling.max_tokens, 5);
  std::string none;
  EXPECT_FALSE((*reply)->Advance(none));
  bench.engine.EmitText(0, "he");
  bench.engine.EmitText(0, "llo", FinishReason::kLength);
  const json::Value body = Whole(**reply);
  EXPECT_EQ(body["id"].AsString(), "cmpl-r");
  EXPECT_EQ(body["model"].AsString(), "m");
  const json::Value& choice = body["choices"].AsArray().at(0);
  EXPECT_EQ(choice["text"].AsString(), "hello");
  EXPECT_EQ(choice["finish_reason"].AsString(), "length");
  EXPECT_TRUE(choice["stop_reason"].is_null());
  EXPECT_EQ(body["usage"]["prompt_tokens"].AsInt(), 3);
  EXPECT_EQ(body["usage"]["completion_tokens"].AsInt(), 5);
}

TEST(Completion, StreamsOneChunkPerOutput) {
  Bench bench;
  auto reply =
      bench.Complete(R"({"prompt":"a","stream":true,"stream_options":{"include_usage":true}})");
  ASSERT_TRUE(reply.ok());
  bool woken = false;
  (*reply)->OnReady([&] { woken = true; });
  EXPECT_FALSE(woken);
  bench.engine.EmitText(0, "x");
  EXPECT_TRUE(woken);
  bool done = true;
  auto frames = Frames(**reply, &done);
  ASSERT_EQ(frames.size(), 1u);
  EXPECT_FALSE(done);
  EXPECT_EQ(Text(frames[0]), "x");
  EXPECT_EQ(frames[0].Find("usage"), nullptr);
  bench.engine.EmitText(0, "y", FinishReason::kLength);
  frames = Frames(**reply, &done);
  EXPECT_TRUE(done);
  ASSERT_EQ(frames.size(), 3u);
  EXPECT_EQ(frames[0]["choices"].AsArray()[0]["finish_reason"].AsString(), "length");
  EXPECT_TRUE(frames[1]["choices"].AsArray().empty());
  EXPECT_EQ(frames[1]["usage"]["completion_tokens"].AsInt(), 2);
  EXPECT_EQ(frames[2].AsString(), "[DONE]");
}

TEST(Completion, ASlowReaderGetsOutputsMerged) {
  Bench bench;
  auto reply = bench.Complete(R"({"prompt":"a","stream":true})");
  ASSERT_TRUE(reply.ok());
  int wakes = 0;
  (*reply)->OnReady([&] { ++wakes; });
  for (const char* piece : {"a", "b", "c"}) bench.engine.EmitText(0, piece);
  EXPECT_EQ(wakes, 1);
  const auto frames = Frames(**reply);
  ASSERT_EQ(frames.size(), 1u);
  EXPECT_EQ(Text(frames[0]), "abc");
}

TEST(Completion, StopStringAcrossTokensAbortsTheEngineRequest) {
  Bench bench;
  auto reply = bench.Complete(R"({"prompt":"a","stream":true,"stop":["END","zzz"]})");
  ASSERT_TRUE(reply.ok());
  bench.engine.EmitText(0, "hi E");
  EXPECT_EQ(Text(Frames(**reply).at(0)), "hi ");
  bench.engine.EmitText(0, "N");
  EXPECT_EQ(Text(Frames(**reply).at(0)), "");
  bench.engine.EmitText(0, "DXY");
  bool done = false;
  const auto frames = Frames(**reply, &done);
  EXPECT_TRUE(done);
  const json::Value& choice = frames.at(0)["choices"].AsArray().at(0);
  EXPECT_EQ(choice["text"].AsString(), "");
  EXPECT_EQ(choice["finish_reason"].AsString(), "stop");
  EXPECT_EQ(choice["stop_reason"].AsString(), "END");
  EXPECT_THAT(bench.engine.aborted, ElementsAre("cmpl-r-0"));
  bench.engine.EmitText(0, "", FinishReason::kAbort);
  EXPECT_NE(bench.registry.Expose().find(R"(finished_reason="stop",model_name="m"} 1.0)"),
            std::string::npos);
  EXPECT_NE(bench.registry.Expose().find(R"(finished_reason="abort",model_name="m"} 0.0)"),
            std::string::npos);
}

TEST(Completion, TokensBehindAStopStringAreNotCounted) {
  Bench bench;
  auto reply = bench.Complete(
      R"({"prompt":"a","stop":"b","include_stop_str_in_output":true,"return_token_ids":true})");
  ASSERT_TRUE(reply.ok());
  bench.engine.EmitText(0, "abcd", FinishReason::kLength);
  const json::Value body = Whole(**reply);
  const json::Value& choice = body["choices"].AsArray().at(0);
  EXPECT_EQ(choice["text"].AsString(), "ab");
  EXPECT_EQ(choice["token_ids"].Dump(), "[97,98]");
  EXPECT_EQ(choice["finish_reason"].AsString(), "stop");
  EXPECT_EQ(body["usage"]["completion_tokens"].AsInt(), 2);
  EXPECT_TRUE(bench.engine.aborted.empty());
}

TEST(Completion, MinTokensGatesStopStrings) {
  Bench bench;
  auto reply = bench.Complete(R"({"prompt":"a","stop":"b","min_tokens":2})");
  ASSERT_TRUE(reply.ok());
  bench.engine.EmitText(0, "bbab", FinishReason::kLength);
  EXPECT_EQ(Text(Whole(**reply)), "bba");
}

TEST(Completion, StopTokensTextIsLeftOut) {
  for (const bool include : {false, true}) {
    Bench bench;
    auto reply = bench.Complete(std::string(R"({"prompt":"a","stop_token_ids":[257])") +
                                (include ? R"(,"include_stop_str_in_output":true})" : "}"));
    ASSERT_TRUE(reply.ok());
    bench.engine.Emit(0, {.tokens = {'o', 257}, .finish = FinishReason::kStop, .stop_token = 257});
    const json::Value body = Whole(**reply);
    EXPECT_EQ(Text(body), include ? "oEND" : "o");
    EXPECT_EQ(body["choices"].AsArray()[0]["stop_reason"].AsInt(), 257);
    EXPECT_EQ(body["usage"]["completion_tokens"].AsInt(), 2);
  }
}

TEST(Completion, ChildrenShareThePromptAndCountSeeds) {
  Bench bench;
  auto reply = bench.Complete(R"({"prompt":["p","q"],"n":2,"seed":7})");
  ASSERT_TRUE(reply.ok());
  EXPECT_THAT(bench.engine.order, ElementsAre("cmpl-r-0", "cmpl-r-1", "cmpl-r-2", "cmpl-r-3"));
  EXPECT_EQ(bench.engine.submitted.at("cmpl-r-1").sampling.seed, 8);
  EXPECT_EQ(bench.engine.submitted.at("cmpl-r-2").sampling.seed, 7);
  EXPECT_EQ(bench.engine.submitted.at("cmpl-r-3").prompt, (std::vector<TokenId>{'q'}));
  for (size_t i = 0; i < 4; ++i) {
    bench.engine.EmitText(3 - i, std::string(1, static_cast<char>('0' + 3 - i)),
                          FinishReason::kLength);
  }
  const json::Value body = Whole(**reply);
  for (size_t i = 0; i < 4; ++i) {
    const json::Value& choice = body["choices"].AsArray().at(i);
    EXPECT_EQ(choice["index"].AsInt(), static_cast<int64_t>(i));
    EXPECT_EQ(choice["text"].AsString(), std::to_string(i));
  }
  EXPECT_EQ(body["usage"]["prompt_tokens"].AsInt(), 2);
}

TEST(Completion, EchoWithLogprobsScoresThePrompt) {
  Bench bench;
  auto reply = bench.Complete(R"({"prompt":"ab","echo":true,"max_tokens":0,"logprobs":1})");
  ASSERT_TRUE(reply.ok());
  const Request& request = bench.engine.submitted.at("cmpl-r-0");
  EXPECT_EQ(request.sampling.max_tokens, 1);
  EXPECT_EQ(request.sampling.prompt_logprobs, 1);
  Output output;
  output.tokens = {'z'};
  output.logprobs = {{{'z', -1.0F, 1}}};
  output.prompt_logprobs = {{{'b', -0.5F, 2}, {'c', -0.25F, 1}}};
  output.finish = FinishReason::kLength;
  bench.engine.Emit(0, std::move(output));
  const json::Value body = Whole(**reply);
  const json::Value& choice = body["choices"].AsArray().at(0);
  EXPECT_EQ(choice["text"].AsString(), "ab");
  EXPECT_EQ(choice["logprobs"]["tokens"].Dump(), R"(["a","b"])");
  EXPECT_EQ(choice["logprobs"]["text_offset"].Dump(), "[0,1]");
  EXPECT_TRUE(choice["logprobs"]["token_logprobs"].AsArray().at(0).is_null());
  EXPECT_EQ(choice["logprobs"]["top_logprobs"].AsArray().at(1)["c"].AsDouble(), -0.25);
  EXPECT_EQ(body["usage"]["completion_tokens"].AsInt(), 0);
}

TEST(Completion, LogprobOffsetsGoOnAcrossChunks) {
  Bench bench;
  auto reply = bench.Complete(R"({"prompt":"p","stream":true,"logprobs":0})");
  ASSERT_TRUE(reply.ok());
  bench.engine.Emit(0, {.tokens = {'a', 'b'}, .logprobs = {{{'a', -1, 1}}, {{'b', -2, 1}}}});
  Frames(**reply);
  bench.engine.Emit(0, {.tokens = {'c'}, .logprobs = {{{'c', -3, 1}}}});
  const auto frames = Frames(**reply);
  EXPECT_EQ(frames.at(0)["choices"].AsArray()[0]["logprobs"]["text_offset"].Dump(), "[2]");
}

TEST(Completion, TransferParametersPassInAndOut) {
  Bench bench;
  auto reply =
      bench.Complete(R"({"prompt":"p","kv_transfer_params":{"do_remote_decode":true,"x":1.0}})");
  ASSERT_TRUE(reply.ok());
  EXPECT_TRUE(
      bench.engine.submitted.at("cmpl-r-0").kv_transfer_params["do_remote_decode"].AsBool());
  Output output;
  output.tokens = {'t'};
  output.finish = FinishReason::kLength;
  output.kv_transfer_params = json::Object{{"remote_engine_id", "e"}};
  bench.engine.Emit(0, std::move(output));
  EXPECT_EQ(Whole(**reply)["kv_transfer_params"].Dump(), R"({"remote_engine_id":"e"})");
}

TEST(Completion, ARejectedDecodeRequestTellsThePrefillEngine) {
  Bench bench;
  EXPECT_FALSE(bench
                   .Complete(R"({"prompt":"p","model":"other",)"
                             R"("kv_transfer_params":{"do_remote_prefill":true}})")
                   .ok());
  EXPECT_EQ(bench.error->status, 404);
  ASSERT_EQ(bench.engine.discarded.size(), 1u);
  EXPECT_TRUE(bench.engine.discarded[0]["do_remote_prefill"].AsBool());
}

TEST(Completion, ARequestRefusedForItsSamplingTellsThePrefillEngine) {
  Bench bench;
  EXPECT_FALSE(bench
                   .Complete(R"({"prompt":"p","logprobs":50,)"
                             R"("kv_transfer_params":{"do_remote_prefill":true}})")
                   .ok());
  EXPECT_EQ(bench.engine.discarded.size(), 1u);
}

TEST(Completion, SeveralPromptsOrChoicesTransferNothing) {
  for (const char* several : {R"("prompt":["a","b"])", R"("prompt":"a","n":2)"}) {
    Bench bench;
    ASSERT_TRUE(bench
                    .Complete("{" + std::string(several) +
                              R"(,"kv_transfer_params":{"do_remote_prefill":true}})")
                    .ok());
    // The first carries the object only for its lender to be told.
    const Request& first = bench.engine.submitted.at("cmpl-r-0");
    const Request& second = bench.engine.submitted.at("cmpl-r-1");
    EXPECT_FALSE(first.transferable);
    EXPECT_FALSE(second.transferable);
    EXPECT_TRUE(first.kv_transfer_params["do_remote_prefill"].AsBool());
    EXPECT_TRUE(second.kv_transfer_params.is_null());
  }
  Bench bench;
  ASSERT_TRUE(bench.Complete(R"({"prompt":["a"]})").ok());
  EXPECT_TRUE(bench.engine.submitted.at("cmpl-r-0").transferable);
}

TEST(Completion, TheIdOfARequestInFlightMayComeAgain) {
  Bench bench;
  bench.engine.taken = {"cmpl-r-0"};
  auto reply = bench.Complete(R"({"prompt":"p"})");
  ASSERT_TRUE(reply.ok()) << reply.status().ToString();
  ASSERT_EQ(bench.engine.order.size(), 1u);
  EXPECT_TRUE(bench.engine.order[0].starts_with("cmpl-r-0-"));
  reply->reset();
  EXPECT_EQ(bench.engine.aborted, bench.engine.order);
}

TEST(Completion, LengthRules) {
  Bench bench;  // max_model_len 100
  const std::string long_prompt(96, 'x');
  EXPECT_FALSE(bench.Complete(R"({"prompt":")" + long_prompt + R"(","max_tokens":50})").ok());
  EXPECT_EQ(bench.error->status, 400);
  EXPECT_EQ(bench.error->message,
            "This model's maximum context length is 100 tokens. However, you requested 50 output "
            "tokens and your prompt contains 96 input tokens, for a total of 146 tokens. Please "
            "reduce the length of the input prompt or the number of requested output tokens. "
            "(parameter=input_tokens, value=96)");
  ASSERT_TRUE(bench.Complete(R"({"prompt":")" + long_prompt + R"(","max_tokens":4})").ok());
  EXPECT_EQ(bench.engine.submitted.at("cmpl-r-0").sampling.max_tokens, 4);
  EXPECT_FALSE(bench.Complete(R"({"prompt":"p","max_tokens":101})").ok());
  EXPECT_EQ(bench.error->param, "max_tokens");
  EXPECT_FALSE(bench.Complete(R"({"prompt":")" + std::string(100, 'x') + R"("})").ok());
  EXPECT_EQ(bench.error->param, "input_tokens");
  EXPECT_FALSE(bench.Complete(R"({"prompt":")" + std::string(501, 'x') + R"("})").ok());
  EXPECT_EQ(bench.error->param, "input_text");
  EXPECT_FALSE(bench.Complete(R"({"prompt":[1,5000]})").ok());
  EXPECT_EQ(bench.error->status, 400);
}

TEST(Completion, TruncatesFromTheChosenSide) {
  Bench bench;
  ASSERT_TRUE(
      bench.Complete(R"({"prompt":"abcdef","truncate_prompt_tokens":2})", {.request_id = "l"})
          .ok());
  EXPECT_EQ(bench.engine.submitted.at("cmpl-l-0").prompt, (std::vector<TokenId>{'e', 'f'}));
  ASSERT_TRUE(bench
                  .Complete(R"({"prompt":"abcdef","truncate_prompt_tokens":2,)"
                            R"("truncation_side":"right"})",
                            {.request_id = "t"})
                  .ok());
  EXPECT_EQ(bench.engine.submitted.at("cmpl-t-0").prompt, (std::vector<TokenId>{'a', 'b'}));
}

TEST(Completion, TruncationLeavesRoomForTheOutput) {
  Bench bench;  // max_model_len 100
  const std::string prompt = R"({"prompt":")" + std::string(99, 'x') + R"(","max_tokens":50,)";
  EXPECT_FALSE(bench.Complete(prompt + R"("truncate_prompt_tokens":60})").ok());
  EXPECT_EQ(bench.error->param, "truncate_prompt_tokens");
  ASSERT_TRUE(bench.Complete(prompt + R"("truncate_prompt_tokens":-1})").ok());
  EXPECT_EQ(bench.engine.submitted.at("cmpl-r-0").prompt.size(), 50u);
}

TEST(Completion, VocabularyAndTopKRules) {
  Bench bench;
  for (const auto& [extra, field] :
       {std::pair{R"("logit_bias":{"9999":1})", "logit_bias"},
        std::pair{R"("allowed_token_ids":[9999])", "allowed_token_ids"},
        std::pair{R"("logprobs":21)", "logprobs"}}) {
    EXPECT_FALSE(bench.Complete(std::string(R"({"prompt":"p",)") + extra + "}").ok()) << extra;
    EXPECT_EQ(bench.error->param, field);
  }
  ASSERT_TRUE(bench.Complete(R"({"prompt":"p","bad_words":["no"],"temperature":0.001})").ok());
  const SamplingParams& sampling = bench.engine.submitted.at("cmpl-r-0").sampling;
  EXPECT_EQ(sampling.bad_words.size(), 2u);
  EXPECT_FLOAT_EQ(sampling.temperature, 0.01F);
}

TEST(Completion, DestroyingTheReplyAbortsEveryOpenChild) {
  Bench bench;
  auto reply = bench.Complete(R"({"prompt":"p","n":3})");
  ASSERT_TRUE(reply.ok());
  bench.engine.EmitText(1, "x", FinishReason::kLength);
  std::string out;
  (*reply)->Advance(out);
  *reply = nullptr;
  EXPECT_THAT(bench.engine.aborted, ElementsAre("cmpl-r-0", "cmpl-r-2"));
  // A late output must find nothing to wake and nothing freed.
  bench.engine.EmitText(0, "late", FinishReason::kAbort);
  EXPECT_NE(bench.registry.Expose().find(R"(finished_reason="abort",model_name="m"} 2.0)"),
            std::string::npos);
}

TEST(Completion, AFullQueueAbortsTheChildrenBefore) {
  Bench bench;
  bench.engine.refuse_after = 1;
  EXPECT_FALSE(bench.Complete(R"({"prompt":"p","n":3})").ok());
  EXPECT_EQ(bench.error->status, 429);
  EXPECT_THAT(bench.engine.aborted, ElementsAre("cmpl-r-0"));
}

TEST(Completion, EngineErrors) {
  Bench bench;
  auto plain = bench.Complete(R"({"prompt":"p"})", {.request_id = "a"});
  auto stream = bench.Complete(R"({"prompt":"p","stream":true})", {.request_id = "b"});
  ASSERT_TRUE(plain.ok() && stream.ok());
  for (size_t i = 0; i < 2; ++i) {
    bench.engine.Emit(i, {.finish = FinishReason::kError, .error = Internal("broken")});
  }
  std::string out;
  EXPECT_TRUE((*plain)->Advance(out));
  EXPECT_EQ((*plain)->error()->status, 500);
  EXPECT_EQ(out, "");
  const auto frames = Frames(**stream);
  ASSERT_EQ(frames.size(), 2u);
  EXPECT_EQ(frames[0]["error"]["message"].AsString(), "broken");
  EXPECT_EQ(frames[1].AsString(), "[DONE]");
}

TEST(Completion, CachedTokensAreShownOnlyWhenAsked) {
  for (const bool on : {false, true}) {
    Bench bench;
    bench.context->options.enable_prompt_tokens_details = on;
    auto reply = bench.Complete(R"({"prompt":"p"})");
    ASSERT_TRUE(reply.ok());
    bench.engine.Emit(0, {.tokens = {'a'}, .finish = FinishReason::kLength, .cached_tokens = 16});
    const json::Value body = Whole(**reply);
    const json::Value& details = body["usage"]["prompt_tokens_details"];
    if (on) {
      EXPECT_EQ(details["cached_tokens"].AsInt(), 16);
    } else {
      EXPECT_TRUE(details.is_null());
    }
  }
}

TEST(Completion, LogsTheRequestAsTheFieldDoes) {
  Bench bench;
  ASSERT_TRUE(bench.Complete(R"({"prompt":"hey","n":1})").ok());
  const auto lines = bench.sink->Lines();
  ASSERT_EQ(lines.size(), 2u);
  const std::string& received = lines[0]["msg"].AsString();
  EXPECT_TRUE(received.starts_with(
      "Received request cmpl-r-0: prompt: 'hey', params: SamplingParams(n=1, "))
      << received;
  EXPECT_TRUE(received.ends_with(
      "prompt_token_ids: [104, 101, 121], lora_request: None, prompt_adapter_request: None."))
      << received;
  EXPECT_EQ(lines[1]["msg"].AsString(), "Added request cmpl-r-0.");
  EXPECT_EQ(lines[1]["request_id"].AsString(), "cmpl-r-0");
}

TEST(Completion, ContinuousUsageIsPerChunk) {
  Bench bench;
  bench.context->options.force_include_usage = true;
  auto reply = bench.Complete(R"({"prompt":"pq","stream":true})");
  ASSERT_TRUE(reply.ok());
  bench.engine.EmitText(0, "ab");
  EXPECT_EQ(Frames(**reply).at(0)["usage"].Dump(),
            R"({"prompt_tokens":2,"total_tokens":4,"completion_tokens":2})");
}

TEST(Completion, HalfACharacterWaits) {
  Bench bench;
  auto reply = bench.Complete(R"({"prompt":"p","stream":true})");
  ASSERT_TRUE(reply.ok());
  bench.engine.EmitText(0, "\xC3");
  EXPECT_EQ(Text(Frames(**reply).at(0)), "");
  bench.engine.EmitText(0, "\xA9");
  EXPECT_EQ(Text(Frames(**reply).at(0)), "é");
}

}  // namespace
}  // namespace llmd::engine::serving
