// Parsers and the estimate of tokens behind them, body by body.
#include "llmd/sched/parser.h"

#include <cstring>

#include "config/graph.h"
#include "llmd/sched/config_loader.h"
#include "pass/scheduling_pass.h"
#include "sched/support.h"
#include "trace/record.h"

namespace llmd::sched {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kParsers[] =
    "requestHandler: {parsers: [{pluginRef: openai-parser}, {pluginRef: anthropic-parser}, "
    "{pluginRef: vllmhttp-parser}, {pluginRef: sglanghttp-parser}, {pluginRef: "
    "passthrough-parser}]}\n";

// What every API takes.
constexpr char kAnyBody[] =
    R"({"model":"m","messages":[{}],"prompt":"p","input":"i","token_ids":[1]})";

class ParserTest : public ::testing::Test {
 protected:
  ParserTest() {
    auto graph = LoadGraph(Config({"{type: openai-parser}", "{type: anthropic-parser}",
                                   "{type: vllmhttp-parser}", "{type: sglanghttp-parser}",
                                   "{type: passthrough-parser}", "{type: prefix-cache-scorer}"}) +
                               kParsers,
                           {});
    EXPECT_TRUE(graph.ok()) << graph.status().ToString();
    if (graph.ok()) graph_ = *graph;
  }
  Status Parse(const std::string& path, const std::string& body) {
    body_ = body;
    request_.Reset(graph_->attribute_count);
    request_.path = path;
    request_.body = body_;
    parser_ = graph_->FindParser(path);
    LLMD_RETURN_IF_ERROR(parser_->Parse(request_));
    request_.target_model = request_.model;
    return OkStatus();
  }
  // The estimate, by way of the producers of a whole graph.
  std::vector<uint32_t> Tokens(const std::string& path, const std::string& body) {
    EXPECT_TRUE(Parse(path, body).ok());
    Snapshot snapshot;
    DecisionRecord record;
    request_.AllEligible(snapshot.size());
    SchedulingPass(*graph_, request_, snapshot, record).Produce();
    for (const Attribute& a : request_.attributes) {
      if (!a.bounds.empty() && !a.tokens.empty()) return a.tokens;
    }
    return {};
  }
  static std::vector<uint32_t> Packed(std::string text) {
    text.resize((text.size() + 3) / 4 * 4, '\0');
    std::vector<uint32_t> out(text.size() / 4);
    std::memcpy(out.data(), text.data(), text.size());
    return out;
  }
  std::shared_ptr<Graph> graph_;
  RequestContext request_;
  Parser* parser_ = nullptr;
  std::string body_;
};

TEST_F(ParserTest, PathsChooseTheApi) {
  const std::pair<const char*, Api> cases[] = {{"/v1/completions", Api::kCompletions},
                                               {"/v1/chat/completions", Api::kChat},
                                               {"/any/prefix/v1/embeddings", Api::kEmbeddings},
                                               {"/v1/responses", Api::kResponses},
                                               {"/v1/chat/completions/render", Api::kChat},
                                               {"/v1/completions/render", Api::kCompletions},
                                               {"/v1/images/generations", Api::kImages},
                                               {"/v1/messages", Api::kMessages},
                                               {"/v1/messages/count_tokens", Api::kMessages},
                                               {"/inference/v1/generate", Api::kGenerate},
                                               {"/generate", Api::kGenerate},
                                               {"/unheard/of", Api::kNone}};
  for (const auto& [path, api] : cases) {
    ASSERT_TRUE(Parse(path, kAnyBody).ok()) << path;
    EXPECT_EQ(request_.api, api) << path;
  }
  EXPECT_EQ(graph_->FindParser("/inference/v1/generate")->type(), "vllmhttp-parser");
  EXPECT_EQ(graph_->FindParser("/generate")->type(), "sglanghttp-parser");
  EXPECT_EQ(graph_->FindParser("/nothing")->type(), "passthrough-parser");
}

TEST_F(ParserTest, ReadsWhatRoutingNeeds) {
  ASSERT_TRUE(
      Parse("/v1/completions",
            R"({"model":"a\"b","stream":true,"max_tokens":12,"cache_salt":"s","prompt":"p"})")
          .ok());
  EXPECT_EQ(request_.model, "a\"b");
  EXPECT_TRUE(request_.streaming);
  EXPECT_EQ(request_.max_tokens, 12);
  EXPECT_EQ(request_.cache_salt, "s");
  EXPECT_EQ(request_.prompt_json, "\"p\"");
}

TEST_F(ParserTest, TheLastOfTwoModelsCounts) {
  ASSERT_TRUE(Parse("/v1/completions", R"({"model":"one","model":"two","prompt":"p"})").ok());
  EXPECT_EQ(request_.model, "two");
}

TEST_F(ParserTest, TokenLimitsComeUnderThreeNamesAndAsText) {
  const char* bodies[] = {R"({"model":"m","messages":[{}],"max_completion_tokens":9})",
                          R"({"model":"m","messages":[{}],"max_output_tokens":9})",
                          R"({"model":"m","messages":[{}],"max_tokens":"9"})"};
  for (const char* body : bodies) {
    ASSERT_TRUE(Parse("/v1/chat/completions", body).ok());
    EXPECT_EQ(request_.max_tokens, 9) << body;
  }
  for (const char* body : {R"({"model":"m","messages":[{}],"max_tokens":-1})",
                           R"({"model":"m","messages":[{}],"max_tokens":"x"})",
                           R"({"model":"m","messages":[{}],"max_tokens":1e99})", kAnyBody}) {
    ASSERT_TRUE(Parse("/v1/chat/completions", body).ok());
    EXPECT_EQ(request_.max_tokens, -1) << body;
  }
}

TEST_F(ParserTest, RefusesWhatIsNoRequest) {
  for (const char* body :
       {"", "[]", "{", R"({"model":1,"prompt":"p"})", R"({"model":null,"prompt":"p"})",
        "{\"prompt\":\"p\"} x", "\xef\xbb\xbf{\"model\":\"m\",\"prompt\":\"p\"}",
        R"({"prompt":"p",})", R"({'a':1})"}) {
    EXPECT_FALSE(Parse("/v1/completions", body).ok()) << body;
  }
  EXPECT_THAT(Parse("/v1/completions", "{").message(), HasSubstr("invalid JSON in request body"));
  const std::string deep(10'001, '[');
  EXPECT_FALSE(
      Parse("/v1/completions", "{\"prompt\":\"p\",\"a\":" + deep + std::string(10'001, ']') + "}")
          .ok());
}

TEST_F(ParserTest, RefusesARequestWithoutWhatItAsks) {
  const std::pair<std::vector<const char*>, std::vector<const char*>> kinds[] = {
      {{"/v1/chat/completions", "/v1/chat/completions/render", "/v1/messages",
        "/v1/messages/count_tokens"},
       {R"("messages":[{"role":"user","content":"x"}])", R"("messages" : [ {} ])"}},
      {{"/v1/completions", "/v1/completions/render"},
       {R"("prompt":"x")", R"("prompt":"")", R"("prompt":[1,2])", R"("prompt":["a","b"])",
        R"("prompt":null,"prompt_embeds":"e")"}},
      {{"/v1/embeddings"}, {R"("input":"x")", R"("input":["x"])", R"("messages":[{}])"}},
      {{"/v1/responses"}, {R"("input":"x")", R"("input":[{}])"}},
      {{"/v1/images/generations"}, {R"("prompt":"x")"}},
      {{"/inference/v1/generate", "/generate"},
       {R"("token_ids":[1])", R"("input_ids":[1])", R"("text":"x")", R"("text":["x"])",
        R"("input_embeds":[[0.5]])"}}};
  const std::vector<const char*> never = {R"("other":1)",      R"("messages":[],"max_tokens":3)",
                                          R"("messages":[ ])", R"("messages":"x")",
                                          R"("messages":{})",  R"("messages":null)",
                                          R"("prompt":1)",     R"("prompt":{})",
                                          R"("prompt":true)",  R"("input":1)",
                                          R"("input":{})",     R"("input":null)",
                                          R"("text":1)",       R"("token_ids":"x")",
                                          R"("input_ids":{})"};
  for (const auto& [paths, good] : kinds) {
    for (const char* path : paths) {
      for (const char* members : good)
        EXPECT_TRUE(Parse(path, std::string(R"({"model":"m",)") + members + "}").ok())
            << path << members;
      for (const char* members : never) {
        const Status status = Parse(path, std::string(R"({"model":"m",)") + members + "}");
        EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << path << members;
        EXPECT_THAT(status.message(), HasSubstr("request body: expected ")) << path;
      }
    }
  }
  EXPECT_TRUE(Parse("/v1/conversations", R"({"model":"m"})").ok());
}

TEST_F(ParserTest, PassthroughReadsNothing) {
  ASSERT_TRUE(Parse("/metrics", "not json").ok());
  EXPECT_EQ(request_.model, "");
  EXPECT_TRUE(request_.members.empty());
}

TEST_F(ParserTest, UsageComesInEveryDialect) {
  const auto usage = [&](const char* path, const char* text) {
    EXPECT_TRUE(Parse(path, kAnyBody).ok());
    Usage u;
    parser_->ReadUsage(text, &u);
    return std::vector<int64_t>{u.prompt_tokens, u.completion_tokens, u.cached_tokens};
  };
  EXPECT_THAT(usage("/v1/completions", R"({"prompt_tokens":5,"completion_tokens":2})"),
              ElementsAre(5, 2, -1));
  EXPECT_THAT(usage("/v1/completions",
                    R"({"prompt_tokens":5,"prompt_tokens_details":{"cached_tokens":4}})"),
              ElementsAre(5, -1, 4));
  EXPECT_THAT(
      usage("/v1/responses",
            R"({"input_tokens":7,"output_tokens":3,"input_tokens_details":{"cached_tokens":1}})"),
      ElementsAre(7, 3, 1));
  EXPECT_THAT(usage("/v1/messages", R"({"input_tokens":7,"cache_read_input_tokens":6})"),
              ElementsAre(7, -1, 6));
  EXPECT_THAT(usage("/v1/completions", R"({"prompt_tokens":"5"})"), ElementsAre(-1, -1, -1));
  EXPECT_THAT(usage("/v1/completions", "[1]"), ElementsAre(-1, -1, -1));
}

TEST_F(ParserTest, UsageOfLaterEventsMerges) {
  ASSERT_TRUE(Parse("/v1/messages", kAnyBody).ok());
  Usage u;
  parser_->ReadUsage(R"({"input_tokens":9,"output_tokens":1})", &u);
  parser_->ReadUsage(R"({"output_tokens":20})", &u);
  EXPECT_EQ(u.prompt_tokens, 9);
  EXPECT_EQ(u.completion_tokens, 20);
}

TEST_F(ParserTest, TextIsPackedFourBytesAToken) {
  EXPECT_EQ(Tokens("/v1/completions", R"({"model":"m","prompt":"abcdefghi"})"),
            Packed("abcdefghi"));
  EXPECT_EQ(Tokens("/v1/completions", R"({"model":"m","prompt":"a\nb\u00e9"})"),
            Packed("a\nb\xc3\xa9"));
}

TEST_F(ParserTest, EscapesAreDecodedWhereverTheyFall) {
  EXPECT_EQ(Tokens("/v1/completions", R"({"model":"m","prompt":"\n\t\r\b\f\"\\\/"})"),
            Packed("\n\t\r\b\f\"\\/"));
  for (size_t before = 0; before < 9; ++before) {
    const std::string text(before, 'x');
    EXPECT_EQ(Tokens("/v1/completions",
                     R"({"model":"m","prompt":")" + text + R"(\n)" + text + R"(\\u0041"})"),
              Packed(text + "\n" + text + "\\u0041"));
  }
}

TEST_F(ParserTest, ChatIsRolesAndTextBehindTheTools) {
  EXPECT_EQ(
      Tokens(
          "/v1/chat/completions",
          R"({"model":"m","messages":[{"role":"system","content":"be kind"},{"role":"user","content":[{"type":"text","text":"hi"}]}],"tools":[{"a":1}]})"),
      Packed(R"([{"a":1}])"
             "systembe kinduserhi"));
}

TEST_F(ParserTest, AnthropicTakesTheSystemTextFirst) {
  EXPECT_EQ(
      Tokens("/v1/messages",
             R"({"model":"m","messages":[{"role":"user","content":"hi"}],"system":"be kind"})"),
      Packed("be kinduserhi"));
}

TEST_F(ParserTest, TokenArraysAreTakenAsTheyAre) {
  EXPECT_THAT(Tokens("/v1/completions", R"({"model":"m","prompt":[1, 2,3]})"),
              ElementsAre(1, 2, 3));
  EXPECT_THAT(Tokens("/inference/v1/generate", R"({"model":"m","token_ids":[7,8]})"),
              ElementsAre(7, 8));
  EXPECT_THAT(Tokens("/generate", R"({"model":"m","input_ids":[4,5]})"), ElementsAre(4, 5));
  EXPECT_EQ(Tokens("/generate", R"({"model":"m","text":"abcd"})"), Packed("abcd"));
}

TEST_F(ParserTest, SglangsExtraKeySeparatesCachesThereAlone) {
  ASSERT_TRUE(Parse("/generate", R"({"model":"m","text":"t","extra_key":"k"})").ok());
  EXPECT_EQ(request_.cache_salt, "k");
  ASSERT_TRUE(Parse("/v1/completions", R"({"model":"m","prompt":"p","extra_key":"k"})").ok());
  EXPECT_EQ(request_.cache_salt, "");
}

TEST_F(ParserTest, AnImageIsAlignedAndCountsItsTokens) {
  const auto with = Tokens(
      "/v1/chat/completions",
      R"({"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"x"},{"type":"image_url","image_url":{"url":"http://a/b.png"}}]}]})");
  ASSERT_EQ(with.size(), 2u + 225u);  // "userx" in two tokens, then 640×360/1024
  EXPECT_EQ(with[2], with.back());
  const auto other = Tokens(
      "/v1/chat/completions",
      R"({"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"x"},{"type":"image_url","image_url":{"url":"http://a/c.png"}}]}]})");
  EXPECT_NE(with.back(), other.back());
}

}  // namespace
}  // namespace llmd::sched
