#include "llmd/openai/request.h"

#include <gtest/gtest.h>

namespace llmd::openai {
namespace {

std::string Body(std::string_view extra) {
  return R"({"prompt":"hi")" + (extra.empty() ? "" : "," + std::string(extra)) + "}";
}
std::string Chat(std::string_view extra) {
  return R"({"messages":[{"role":"user","content":"hi"}])" +
         (extra.empty() ? "" : "," + std::string(extra)) + "}";
}

CompletionRequest Good(std::string_view body) {
  CompletionRequest request;
  const MaybeError error = ParseCompletion(body, {}, &request);
  EXPECT_FALSE(error) << body << ": " << error->message;
  return request;
}
ChatRequest GoodChat(std::string_view body) {
  ChatRequest request;
  const MaybeError error = ParseChat(body, {}, &request);
  EXPECT_FALSE(error) << body << ": " << error->message;
  return request;
}
ApiError Bad(std::string_view body) {
  CompletionRequest request;
  return ParseCompletion(body, {}, &request).value_or(ApiError{200, "accepted", "", ""});
}
ApiError BadChat(std::string_view body) {
  ChatRequest request;
  return ParseChat(body, {}, &request).value_or(ApiError{200, "accepted", "", ""});
}

TEST(ParseCompletion, DefaultsAreVllms) {
  const CompletionRequest r = Good(Body(""));
  EXPECT_EQ(std::get<std::string>(r.prompts.at(0)), "hi");
  EXPECT_EQ(r.max_tokens, 16);
  EXPECT_EQ(r.n, 1);
  EXPECT_FALSE(r.stream);
  EXPECT_FALSE(r.temperature);
  EXPECT_TRUE(r.skip_special_tokens);
  EXPECT_TRUE(r.add_special_tokens);
  EXPECT_FALSE(r.model);
}

TEST(ParseCompletion, CoercesLaxly) {
  const CompletionRequest r = Good(Body(
      R"("max_tokens":"1","temperature":"0.5","n":1.0,"stream":"false","top_k":true,"seed":"007",)"
      R"("min_tokens":" 1 ","unknown_field":{"x":1},"ignore_eos":"yes")"));
  EXPECT_EQ(r.max_tokens, 1);
  EXPECT_EQ(r.temperature, 0.5);
  EXPECT_EQ(r.top_k, 1);
  EXPECT_EQ(r.seed, 7);
  EXPECT_EQ(r.min_tokens, 1);
  EXPECT_TRUE(r.ignore_eos);
}

TEST(ParseCompletion, TakesEveryPromptForm) {
  EXPECT_EQ(Good(R"({"prompt":["a","b"]})").prompts.size(), 2u);
  EXPECT_EQ(std::get<TokenIds>(Good(R"({"prompt":[1,2,3]})").prompts.at(0)), (TokenIds{1, 2, 3}));
  const CompletionRequest r = Good(R"({"prompt":[[1],[2,3]]})");
  EXPECT_EQ(std::get<TokenIds>(r.prompts.at(1)), (TokenIds{2, 3}));
}

TEST(ParseCompletion, RefusesEmptyAndMalformedPrompts) {
  for (const char* body : {R"({})", R"({"prompt":""})", R"({"prompt":[]})", R"({"prompt":null})",
                           R"({"prompt":[[]]})", R"({"prompt":[-1]})", R"({"prompt":[1,"a"]})",
                           R"({"prompt":{"a":1}})", R"({"prompt":["a",""]})"}) {
    const ApiError error = Bad(body);
    EXPECT_EQ(error.status, 400) << body;
    EXPECT_EQ(error.param, "prompt") << body;
  }
}

TEST(ParseCompletion, LimitsTheNumberOfPrompts) {
  CompletionRequest request;
  ParseLimits limits;
  limits.max_prompts = 2;
  EXPECT_FALSE(ParseCompletion(R"({"prompt":["a","b"]})", limits, &request));
  EXPECT_TRUE(ParseCompletion(R"({"prompt":["a","b","c"]})", limits, &request));
}

TEST(ParseCompletion, NamesTheFieldOfABrokenRule) {
  const std::pair<const char*, const char*> cases[] = {
      {R"("n":0)", "n"},
      {R"("n":20000)", "n"},
      {R"("n":2,"temperature":0)", "n"},
      {R"("max_tokens":0)", "max_tokens"},
      {R"("max_tokens":-3)", "max_tokens"},
      {R"("temperature":-0.1)", "temperature"},
      {R"("temperature":2.5)", "temperature"},
      {R"("temperature":"nan")", "temperature"},
      {R"("top_p":0)", "top_p"},
      {R"("top_p":1.01)", "top_p"},
      {R"("top_k":-2)", "top_k"},
      {R"("min_p":2)", "min_p"},
      {R"("repetition_penalty":0)", "repetition_penalty"},
      {R"("presence_penalty":3)", "presence_penalty"},
      {R"("frequency_penalty":-2.1)", "frequency_penalty"},
      {R"("min_tokens":20)", "min_tokens"},
      {R"("stop":["a","b","c","d","e"])", "stop"},
      {R"("stop":[""])", "stop"},
      {R"("stream_options":{"include_usage":true})", "stream_options"},
      {R"("logprobs":"1")", "logprobs"},
      {R"("logprobs":-2)", "logprobs"},
      {R"("prompt_logprobs":"1")", "prompt_logprobs"},
      {R"("prompt_logprobs":1,"stream":true)", "prompt_logprobs"},
      {R"("logit_bias":{"x":1})", "logit_bias"},
      {R"("allowed_token_ids":[])", "allowed_token_ids"},
      {R"("cache_salt":"")", "cache_salt"},
      {R"("cache_salt":"a/b")", "cache_salt"},
      {R"("suffix":"s")", "suffix"},
      {R"("truncate_prompt_tokens":-2)", "truncate_prompt_tokens"},
  };
  for (const auto& [extra, field] : cases) {
    const ApiError error = Bad(Body(extra));
    EXPECT_EQ(error.status, 400) << extra;
    EXPECT_EQ(error.type, "BadRequestError") << extra;
    EXPECT_EQ(error.param, field) << extra << ": " << error.message;
  }
}

TEST(ParseCompletion, SchemaFailuresNameTheLocation) {
  for (const char* extra : {R"("max_tokens":"abc")", R"("max_tokens":1.5)", R"("max_tokens":[])"}) {
    const ApiError error = Bad(Body(extra));
    EXPECT_EQ(error.type, "Bad Request") << extra;
    EXPECT_EQ(error.param, "body.max_tokens");
    EXPECT_TRUE(error.message.starts_with("1 validation error:")) << error.message;
  }
  EXPECT_EQ(Bad(Body(R"("model":5)")).param, "body.model");
  EXPECT_EQ(Bad(Body(R"("seed":9223372036854775808)")).param, "body.seed");
  EXPECT_TRUE(Bad(Body(R"("seed":"x","top_k":"y")")).message.starts_with("2 validation errors:"));
  EXPECT_EQ(Bad("[1]").status, 400);
  EXPECT_EQ(Bad("{\"prompt\":").status, 400);
  EXPECT_EQ(Bad("").status, 400);
}

TEST(ParseCompletion, NamesWhatIsNotBuilt) {
  const std::pair<const char*, const char*> cases[] = {
      {R"("use_beam_search":true)", "use_beam_search"},
      {R"("guided_json":{"a":1})", "guided_json"},
      {R"("guided_choice":["a"])", "guided_choice"},
      {R"("structured_outputs":{"regex":"a"})", "structured_outputs"},
      {R"("response_format":{"type":"json_object"})", "response_format"},
      {R"("prompt_embeds":"AA==")", "prompt_embeds"},
      {R"("cache_hit_threshold":0.5)", "cache_hit_threshold"},
  };
  for (const auto& [extra, field] : cases) {
    const ApiError error = Bad(Body(extra));
    EXPECT_EQ(error.status, 501) << extra;
    EXPECT_EQ(error.param, field);
  }
  Good(Body(R"("use_beam_search":false,"guided_json":null,"response_format":{"type":"text"})"));
}

TEST(ParseCompletion, ReadsTheExtensions) {
  const CompletionRequest r = Good(Body(
      R"("stop":"x","stop_token_ids":[1,"2"],"logit_bias":{"5":200,"6":-1.5},"stream":true,)"
      R"("stream_options":{"include_usage":1},"kv_transfer_params":{"do_remote_decode":true},)"
      R"("cache_salt":"s","priority":3,"bad_words":["no"],"seed":-1,"echo":true,"max_tokens":0)"));
  EXPECT_EQ(r.stop, (std::vector<std::string>{"x"}));
  EXPECT_EQ(r.stop_token_ids, (TokenIds{1, 2}));
  EXPECT_EQ(r.logit_bias.at(0), (std::pair<int32_t, float>{5, 100.0F}));
  EXPECT_EQ(r.logit_bias.at(1), (std::pair<int32_t, float>{6, -1.5F}));
  EXPECT_TRUE(r.include_usage);
  EXPECT_TRUE(r.kv_transfer_params["do_remote_decode"].AsBool());
  EXPECT_EQ(r.cache_salt, "s");
  EXPECT_FALSE(r.seed);
  EXPECT_EQ(r.max_tokens, 0);
}

TEST(ParseChat, ReadsMessagesAndLimits) {
  const ChatRequest r = GoodChat(
      Chat(R"("max_tokens":5,"max_completion_tokens":"7","logprobs":true,"top_logprobs":2)"));
  EXPECT_EQ(r.prompt.messages.size(), 1u);
  EXPECT_EQ(r.max_tokens, 7);
  EXPECT_EQ(r.logprobs, 2);
  EXPECT_TRUE(r.prompt.add_generation_prompt);
  EXPECT_FALSE(r.add_special_tokens);
  EXPECT_FALSE(GoodChat(Chat("")).max_tokens);
  EXPECT_FALSE(GoodChat(Chat(R"("top_logprobs":null)")).logprobs);
}

TEST(ParseChat, NormalisesContent) {
  const ChatRequest r =
      GoodChat(R"({"messages":[{"role":"system","content":null},)"
               R"({"role":"user","content":[{"type":"text","text":"a"},"b"]},)"
               R"({"role":"assistant","reasoning_content":"r","tool_calls":[{"function":)"
               R"({"name":"f","arguments":"{\"x\":1}"}}]}]})");
  EXPECT_EQ(r.prompt.messages[0]["content"].AsString(), "");
  EXPECT_EQ(r.prompt.messages[1]["content"].Dump(),
            R"([{"type":"text","text":"a"},{"type":"text","text":"b"}])");
  EXPECT_EQ(r.prompt.messages[2]["reasoning"].AsString(), "r");
  const json::Value& call = r.prompt.messages[2]["tool_calls"].AsArray()[0];
  EXPECT_EQ(call["function"]["arguments"]["x"].AsInt(), 1);
}

json::Value OneMessage(std::string_view message) {
  return GoodChat(R"({"messages":[)" + std::string(message) + "]}").prompt.messages.at(0);
}

TEST(ParseChat, AnAnswerSentBackIsAMessage) {
  // What openai-python's model_dump() makes of an answer.
  EXPECT_EQ(OneMessage(R"({"content":"hi","refusal":null,"role":"assistant","annotations":null,)"
                       R"("audio":null,"function_call":null,"tool_calls":null})")
                .Dump(),
            R"({"role":"assistant","content":"hi"})");
  EXPECT_EQ(OneMessage(R"({"role":"assistant","content":"hi","tool_calls":[]})").Dump(),
            R"({"role":"assistant","content":"hi"})");
  EXPECT_TRUE(OneMessage(R"({"role":"assistant","content":null})")["content"].is_null());
}

TEST(ParseChat, ToolArgumentsThatAreNoObjectAreAnEmptyOne) {
  for (const char* arguments :
       {R"("{\"x\":")", "null", R"("")", R"("[1]")", R"("null")", "5", R"("3")", "[]"}) {
    const json::Value message =
        OneMessage(R"({"role":"assistant","tool_calls":[{"id":"c","type":"function","function":)"
                   R"({"name":"f","arguments":)" +
                   std::string(arguments) + "}}]}");
    EXPECT_EQ(message["tool_calls"].Dump(),
              R"([{"id":"c","type":"function","function":{"name":"f","arguments":{}}}])")
        << arguments;
  }
  const json::Value none =
      OneMessage(R"({"role":"assistant","tool_calls":[{"function":{"name":"f"}}]})");
  EXPECT_EQ(none["tool_calls"].Dump(), R"([{"function":{"name":"f","arguments":{}}}])");
}

TEST(ParseChat, ToolCallsAreObjectsOfTypeFunction) {
  for (const char* calls : {"[1]", R"([{"type":"custom"}])", R"([{"type":"function"}])",
                            R"([{"type":"custom","function":{"name":"f"}}])"}) {
    const ApiError error =
        BadChat(R"({"messages":[{"role":"assistant","tool_calls":)" + std::string(calls) + "}]}");
    EXPECT_EQ(error.status, 400) << calls;
    EXPECT_EQ(error.param, "tool_calls") << calls;
  }
}

TEST(ParseChat, GivesTemplatesWhatVllmGivesThem) {
  EXPECT_EQ(
      OneMessage(R"({"role":"tool","content":"7","tool_call_id":"c","name":"f","x":1})").Dump(),
      R"({"role":"tool","content":"7","tool_call_id":"c","name":"f"})");
  EXPECT_EQ(OneMessage(R"({"role":"user","content":"q","tool_calls":[{}],"name":null})").Dump(),
            R"({"role":"user","content":"q"})");
  EXPECT_EQ(OneMessage(R"({"role":"assistant","content":"a","reasoning_content":"r"})").Dump(),
            R"({"role":"assistant","content":"a","reasoning":"r","reasoning_content":"r",)"
            R"("thinking":"r"})");
  EXPECT_EQ(OneMessage(R"({"role":"developer","content":"d"})").Dump(),
            R"({"role":"developer","content":"d","tools":null})");
  EXPECT_EQ(OneMessage(R"({"role":"user","content":[{"type":"refusal","refusal":"no"},)"
                       R"({"type":"text","text":"a","cache_control":{"type":"ephemeral"}}]})")
                .Dump(),
            R"({"role":"user","content":[{"type":"text","text":"no"},)"
            R"({"type":"text","text":"a","cache_control":{"type":"ephemeral"}}]})");
}

TEST(ParseChat, RefusesByName) {
  const std::tuple<std::string, int, const char*> cases[] = {
      {R"({})", 400, "body.messages"},
      {R"({"messages":[]})", 400, "messages"},
      {R"({"messages":"x"})", 400, "body.messages"},
      {R"({"messages":[{"content":"x"}]})", 400, "body.messages.0.role"},
      {R"({"messages":[{"role":"user","content":5}]})", 400, "body.messages.0.content"},
      {R"({"messages":[{"role":"user","content":[{"type":"image_url","image_url":{}}]}]})", 501,
       "messages[0].content type image_url"},
      {Chat(R"("top_logprobs":2)"), 400, "top_logprobs"},
      {Chat(R"("top_logprobs":"2","logprobs":true)"), 400, "top_logprobs"},
      {Chat(R"("max_completion_tokens":0)"), 400, "max_completion_tokens"},
      {Chat(R"("tools":[])"), 400, "tools"},
      {Chat(R"("tools":[{"type":"function"}])"), 400, "tool_choice"},
      {Chat(R"("tools":[{"type":"function"}],"tool_choice":"required")"), 501, "tool_choice"},
      {Chat(R"("chat_template":"x")"), 400, "chat_template"},
      {Chat(R"("continue_final_message":true)"), 400, "continue_final_message"},
      {Chat(R"("response_format":{"type":"json_schema"})"), 501, "response_format"},
  };
  for (const auto& [body, status, field] : cases) {
    const ApiError error = BadChat(body);
    EXPECT_EQ(error.status, status) << body << error.message;
    EXPECT_EQ(error.param, field) << body;
  }
  GoodChat(Chat(R"("tools":[{"type":"function"}],"tool_choice":"none")"));
}

TEST(ParseTokenize, TakesTextAndMessages) {
  TokenizeRequest text, chat, none;
  EXPECT_FALSE(ParseTokenize(R"({"prompt":"x","return_token_strs":true})", {}, &text));
  EXPECT_TRUE(text.add_special_tokens);
  EXPECT_TRUE(text.return_token_strs);
  EXPECT_FALSE(ParseTokenize(Chat(""), {}, &chat));
  EXPECT_FALSE(chat.add_special_tokens);
  EXPECT_TRUE(std::holds_alternative<ChatPrompt>(chat.input));
  EXPECT_EQ(ParseTokenize("{}", {}, &none)->param, "body.prompt");
}

TEST(ParseDetokenize, NeedsTokens) {
  DetokenizeRequest request;
  EXPECT_FALSE(ParseDetokenize(R"({"tokens":[1,2]})", &request));
  EXPECT_EQ(request.tokens, (TokenIds{1, 2}));
  EXPECT_EQ(ParseDetokenize("{}", &request)->param, "body.tokens");
}

}  // namespace
}  // namespace llmd::openai
