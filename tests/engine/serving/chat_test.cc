#include <gtest/gtest.h>

#include "engine/serving/fake_engine.h"

namespace llmd::engine::serving {
namespace {

std::string Prompt(const Bench& bench) {
  const std::vector<TokenId>& ids = bench.engine.submitted.at("chatcmpl-r-0").prompt;
  return {ids.begin(), ids.end()};
}

TEST(Chat, RendersTheTemplateAndUsesTheWholeContext) {
  Bench bench;
  auto reply = bench.Chat(
      R"({"messages":[{"role":"system","content":"s"},{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}]})");
  ASSERT_TRUE(reply.ok()) << bench.error->message;
  EXPECT_EQ(Prompt(bench), "<system>s<user>a\nb<assistant>");
  const Request& request = bench.engine.submitted.at("chatcmpl-r-0");
  EXPECT_EQ(request.sampling.max_tokens, 100 - static_cast<int>(request.prompt.size()));
  bench.engine.EmitText(0, "hi", FinishReason::kStop);
  const json::Value body = Whole(**reply);
  EXPECT_EQ(body["object"].AsString(), "chat.completion");
  const json::Value& message = body["choices"].AsArray().at(0)["message"];
  EXPECT_EQ(message["role"].AsString(), "assistant");
  // The last token of a stop is the end token, whose text is not the answer's.
  EXPECT_EQ(message["content"].AsString(), "h");
}

constexpr std::string_view kPlainContent =
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}</end>{% endfor %}";
constexpr std::string_view kTrimmedContent =
    "{% for m in messages %}<{{ m.role }}>{{ m.content|trim }}</end>{% endfor %}";

// The prompt of one conversation of which the last message goes on.
std::string Continued(std::string_view chat_template, std::string_view last_content,
                      std::string_view before = "") {
  Bench bench(chat_template);
  const auto reply = bench.Chat(R"({"messages":[)" + std::string(before) +
                                R"({"role":"assistant","content":)" + std::string(last_content) +
                                R"(}],"continue_final_message":true,)"
                                R"("add_generation_prompt":false})");
  return reply.ok() ? Prompt(bench) : bench.error->message;
}

TEST(Chat, ContinuesTheFinalMessage) {
  EXPECT_EQ(Continued(kPlainContent, R"("once ")"), "<assistant>once ");
  EXPECT_EQ(Continued(kTrimmedContent, R"(" once ")"), "<assistant>once");
  EXPECT_EQ(Continued(kTrimmedContent, R"("once\u00a0\u3000")"), "<assistant>once");
}

TEST(Chat, ContinuesWhereTheMessageStandsNotWhereItsTextComesLast) {
  EXPECT_EQ(Continued(kPlainContent, R"("<")"), "<assistant><");
  EXPECT_EQ(Continued(kPlainContent, R"("end")"), "<assistant>end");
  EXPECT_EQ(Continued(kPlainContent, R"("user", "x": 1)", R"({"role":"user","content":"q"},)"),
            "<user>q</end><assistant>user");
}

TEST(Chat, ContinuesEmptyAndBlankBeginnings) {
  EXPECT_EQ(Continued(kPlainContent, R"("")"), "<assistant>");
  EXPECT_EQ(Continued(kPlainContent, "null"), "<assistant>");
  EXPECT_EQ(Continued(kPlainContent, R"(" \n")"), "<assistant> \n");
  EXPECT_EQ(Continued(kTrimmedContent, R"(" \n")"), "<assistant>");
}

TEST(Chat, ContinuesTheLastTextPart) {
  constexpr std::string_view parts =
      "{% for m in messages %}{% for p in m.content %}({{ p.text }}){% endfor %}{% endfor %}";
  EXPECT_EQ(Continued(parts, R"([{"type":"text","text":"a"},{"type":"text","text":"("}])"),
            "(a)((");
  EXPECT_NE(Continued(parts, "[]").find("no text to continue"), std::string::npos);
}

TEST(Chat, RefusesToContinueWhatTheTemplateLeavesOut) {
  EXPECT_NE(Continued("{{ messages[0].role }}", R"("a")").find("does not appear in the chat"),
            std::string::npos);
}

// A template that loops over content and takes text for it too, as Kimi-K2's and GLM's.
constexpr std::string_view kListContent =
    "{% for m in messages %}<{{ m.role }}>{% if m.content is string %}{{ m.content }}"
    "{% elif m.content is none %}None{% else %}{% for p in m.content %}[{{ p.text }}]{% endfor %}"
    "{% endif %}{% endfor %}";

TEST(Chat, AToolsResultIsTextAlsoWhereContentIsAList) {
  const auto prompt = [](std::string_view message) {
    Bench bench(kListContent);
    EXPECT_TRUE(bench.Chat(R"({"messages":[)" + std::string(message) + "]}").ok());
    return Prompt(bench);
  };
  EXPECT_EQ(prompt(R"({"role":"tool","content":"21 C"})"), "<tool>21 C");
  EXPECT_EQ(prompt(R"({"role":"tool","content":[{"type":"text","text":"a"},"b"]})"), "<tool>a\nb");
  EXPECT_EQ(prompt(R"({"role":"tool","content":null})"), "<tool>");
  EXPECT_EQ(prompt(R"({"role":"user","content":"q"})"), "<user>[q]");
  EXPECT_EQ(prompt(R"({"role":"assistant","content":null})"), "<assistant>");
}

TEST(Chat, TheDevelopersRoleIsSystemForTemplatesWithoutIt) {
  constexpr std::string_view body = R"({"messages":[{"role":"developer","content":"d"}]})";
  Bench plain;
  ASSERT_TRUE(plain.Chat(body).ok());
  EXPECT_EQ(Prompt(plain), "<system>d<assistant>");
  Bench knows(
      "{% for m in messages %}{% if m['role'] == 'developer' %}D:{% endif %}{{ m.role }}"
      "{% endfor %}");
  ASSERT_TRUE(knows.Chat(body).ok());
  EXPECT_EQ(Prompt(knows), "D:developer");
}

TEST(Chat, ToolsTakeTheTemplateNamedToolUse) {
  Bench bench("plain");
  bench.templates.Add("tool_use", "with tools");
  const std::string messages = R"({"messages":[{"role":"user","content":"q"}])";
  ASSERT_TRUE(bench.Chat(messages + "}").ok());
  EXPECT_EQ(Prompt(bench), "plain");
  ASSERT_TRUE(bench
                  .Chat(messages + R"(,"tools":[{"type":"function"}],"tool_choice":"none"})",
                        {.request_id = "t"})
                  .ok());
  const std::vector<TokenId>& ids = bench.engine.submitted.at("chatcmpl-t-0").prompt;
  EXPECT_EQ(std::string(ids.begin(), ids.end()), "with tools");
}

TEST(Chat, StreamsRoleThenContent) {
  Bench bench;
  auto reply = bench.Chat(R"({"messages":[{"role":"user","content":"q"}],"stream":true})");
  ASSERT_TRUE(reply.ok());
  bench.engine.EmitText(0, "a");
  auto frames = Frames(**reply);
  ASSERT_EQ(frames.size(), 2u);
  EXPECT_EQ(frames[0]["choices"].AsArray()[0]["delta"].Dump(),
            R"({"role":"assistant","content":""})");
  EXPECT_EQ(frames[1]["choices"].AsArray()[0]["delta"].Dump(), R"({"content":"a"})");
  bench.engine.EmitText(0, "b", FinishReason::kLength);
  frames = Frames(**reply);
  ASSERT_EQ(frames.size(), 2u);
  EXPECT_EQ(frames[0]["choices"].AsArray()[0]["finish_reason"].AsString(), "length");
  EXPECT_EQ(frames[1].AsString(), "[DONE]");
}

TEST(Chat, EchoRepeatsTheLastMessageOfTheSameRole) {
  Bench bench;
  auto reply = bench.Chat(
      R"({"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"so "}],)"
      R"("add_generation_prompt":false,"echo":true})");
  ASSERT_TRUE(reply.ok());
  bench.engine.EmitText(0, "far", FinishReason::kLength);
  EXPECT_EQ(Whole(**reply)["choices"].AsArray()[0]["message"]["content"].AsString(), "so far");
}

TEST(Chat, LogprobsGiveBytes) {
  Bench bench;
  auto reply = bench.Chat(
      R"({"messages":[{"role":"user","content":"q"}],"logprobs":true,"top_logprobs":2})");
  ASSERT_TRUE(reply.ok());
  EXPECT_EQ(bench.engine.submitted.at("chatcmpl-r-0").sampling.logprobs, 2);
  bench.engine.Emit(0, {.tokens = {'a'},
                        .logprobs = {{{'a', -0.5F, 1}, {'a', -0.5F, 1}, {'b', -1.5F, 2}}},
                        .finish = FinishReason::kLength});
  const json::Value body = Whole(**reply);
  EXPECT_EQ(
      body["choices"].AsArray()[0]["logprobs"].Dump(),
      R"({"content":[{"token":"a","logprob":-0.5,"bytes":[97],"top_logprobs":[)"
      R"({"token":"a","logprob":-0.5,"bytes":[97]},{"token":"b","logprob":-1.5,"bytes":[98]}]}]})");
}

TEST(Chat, TemplateErrorsAreTheClients) {
  Bench bench("{{ raise_exception('roles must alternate') }}");
  EXPECT_FALSE(bench.Chat(R"({"messages":[{"role":"user","content":"q"}]})").ok());
  EXPECT_EQ(bench.error->status, 400);
  EXPECT_NE(bench.error->message.find("roles must alternate"), std::string::npos);
}

TEST(Chat, RefusesWithoutATemplate) {
  Bench bench("");
  EXPECT_FALSE(bench.Chat(R"({"messages":[{"role":"user","content":"q"}]})").ok());
  EXPECT_EQ(bench.error->status, 400);
  EXPECT_NE(bench.error->message.find("no chat template"), std::string::npos);
}

TEST(Chat, ABadTemplateIsNamedAndCompletionsWork) {
  Bench bench("a\n{% import 'x' %}");
  EXPECT_FALSE(bench.Chat(R"({"messages":[{"role":"user","content":"q"}]})").ok());
  EXPECT_EQ(bench.error->status, 400);
  EXPECT_NE(bench.error->message.find("line 2, column 4: unknown tag"), std::string::npos)
      << bench.error->message;
  EXPECT_TRUE(bench.Complete(R"({"prompt":"p"})").ok());
}

TEST(Tokenize, TextAndChat) {
  Bench bench;
  std::string out;
  EXPECT_FALSE(Tokenize(*bench.context, R"({"prompt":"ab","return_token_strs":true})", &out));
  EXPECT_EQ(out, R"({"count":2,"max_model_len":100,"tokens":[97,98],"token_strs":["a","b"]})");
  EXPECT_FALSE(
      Tokenize(*bench.context,
               R"({"messages":[{"role":"u","content":"x"}],"add_generation_prompt":false})", &out));
  EXPECT_EQ(out, R"({"count":4,"max_model_len":100,"tokens":[60,117,62,120],"token_strs":null})");
  EXPECT_EQ(Tokenize(*bench.context, R"({"prompt":"a","model":"zz"})", &out)->status, 404);
}

TEST(Detokenize, GivesTextOrRefusesUnknownIds) {
  Bench bench;
  std::string out;
  EXPECT_FALSE(Detokenize(*bench.context, R"({"tokens":[97,"98"]})", &out));
  EXPECT_EQ(out, R"({"prompt":"ab"})");
  EXPECT_EQ(Detokenize(*bench.context, R"({"tokens":[100000]})", &out)->status, 400);
}

TEST(ModelsBody, HasACardPerName) {
  Bench bench;
  const auto parsed = json::Parse(ModelsBody(*bench.context));
  ASSERT_TRUE(parsed.ok());
  ASSERT_EQ((*parsed)["data"].AsArray().size(), 2u);
  EXPECT_EQ((*parsed)["data"].AsArray()[1]["id"].AsString(), "alias");
  EXPECT_EQ((*parsed)["data"].AsArray()[0]["root"].AsString(), "/m.gguf");
}

}  // namespace
}  // namespace llmd::engine::serving
