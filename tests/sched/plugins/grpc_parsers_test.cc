// The parsers of gRPC bodies: vLLM's engine service and Vertex AI's prediction service.
#include "config/graph.h"
#include "director/body_edits.h"
#include "llmd/proto_wire.h"
#include "llmd/sched/config_loader.h"
#include "plugins/parser/grpc_frame.h"
#include "sched/director_support.h"
#include "sched/proto_support.h"

namespace llmd::sched {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr char kGenerate[] = "/vllm.grpc.engine.VllmEngine/Generate";
constexpr char kEmbed[] = "/vllm.grpc.engine.VllmEngine/Embed";
constexpr char kChat[] = "/google.cloud.aiplatform.v1beta1.PredictionService/ChatCompletions";
constexpr char kRaw[] = "/google.cloud.aiplatform.v1beta1.PredictionService/RawPredict";

TEST(GrpcFrames, AreFoundWhateverTheBorders) {
  const std::string big(2 << 20, 'x');
  const std::string stream =
      Grpc("one") + Grpc("") + Grpc("zip", 1) + Grpc(big) + Grpc("two") + Grpc("cut").substr(0, 6);
  for (size_t step : {size_t{1}, size_t{2}, size_t{7}, stream.size()}) {
    GrpcFrames frames;
    std::vector<std::string> found;
    const auto note = [&](std::string_view m) { found.emplace_back(m); };
    for (size_t i = 0; i < stream.size(); i += step)
      frames.Feed(std::string_view(stream).substr(i, step), note);
    EXPECT_THAT(found, ElementsAre("one", "two")) << step;
  }
}

TEST(UnaryGrpcMessage, RefusesWhatIsNotOneMessage) {
  EXPECT_EQ(*UnaryGrpcMessage(Grpc("abc")), "abc");
  EXPECT_EQ(*UnaryGrpcMessage(Grpc("")), "");
  for (const std::string& bad : {std::string(), std::string("\0\0\0\0", 4), Grpc("abc", 1),
                                 Grpc("abc") + "x", Grpc("abc").substr(0, 7)}) {
    EXPECT_EQ(UnaryGrpcMessage(bad).status().code(), StatusCode::kInvalidArgument);
  }
}

class GrpcParsers : public ::testing::Test {
 protected:
  GrpcParsers() {
    auto graph =
        LoadGraph(Config({"{type: vllmgrpc-parser}", "{type: vertexai-parser}",
                          "{type: passthrough-parser}", "{type: queue-scorer}"}) +
                      "requestHandler: {parsers: [{pluginRef: vllmgrpc-parser}, {pluginRef: "
                      "vertexai-parser}, {pluginRef: passthrough-parser}]}\n",
                  {});
    EXPECT_TRUE(graph.ok()) << graph.status().ToString();
    if (graph.ok()) graph_ = *graph;
  }
  Status Parse(const std::string& path, std::string body) {
    body_ = std::move(body);
    request_.Reset(graph_->attribute_count);
    request_.path = path;
    request_.body = body_;
    parser_ = graph_->FindParser(path);
    return parser_->Parse(request_);
  }
  // The usage an answer reports, fed in pieces of `step`.
  std::vector<int64_t> UsageOf(const std::string& answer, size_t step) {
    Usage usage;
    const std::unique_ptr<ResponseReader> reader = parser_->MakeReader(request_);
    for (size_t i = 0; i < answer.size(); i += step)
      reader->Feed(std::string_view(answer).substr(i, step), &usage);
    return {usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens};
  }
  std::shared_ptr<Graph> graph_;
  RequestContext request_;
  Parser* parser_ = nullptr;
  std::string body_;
};

TEST_F(GrpcParsers, GenerateTakesTokensLimitsAndStream) {
  const std::string sampling = Base128(2 << 3 | 5) + std::string(4, 'f') + Num(8, 77) + Num(15, 1);
  const std::string tokenized = Len(1, "ignored") + Packed(2, {5, 600, 70000}) + Num(2, 8);
  ASSERT_TRUE(
      Parse(kGenerate, Grpc(Len(1, "id") + Len(2, tokenized) + Len(4, sampling) + Num(5, 1))).ok());
  EXPECT_EQ(request_.api, Api::kCompletions);
  EXPECT_TRUE(request_.has_prompt_tokens);
  EXPECT_THAT(request_.prompt_tokens, ElementsAre(5, 600, 70000, 8));
  EXPECT_EQ(request_.max_tokens, 77);
  EXPECT_TRUE(request_.streaming);
  EXPECT_FALSE(request_.names_model);
}

TEST_F(GrpcParsers, GenerateTakesTextAndNothingElse) {
  ASSERT_TRUE(Parse(kGenerate, Grpc(Len(3, "hello"))).ok());
  EXPECT_EQ(request_.prompt_text, "hello");
  EXPECT_FALSE(request_.streaming);
  EXPECT_EQ(request_.max_tokens, -1);
  EXPECT_THAT(Parse(kGenerate, Grpc(Len(1, "id"))).message(), HasSubstr("tokenized or text"));
}

TEST_F(GrpcParsers, MediaKeepTheirPlacesAndHashes) {
  const std::string media =
      Len(5, Num(1, 15) + Num(2, 391)) + Len(5, Num(1, 500)) + Len(6, "aaaa") + Len(2, "tensor");
  ASSERT_TRUE(Parse(kGenerate, Grpc(Len(2, Packed(2, {1})) + Len(7, media))).ok());
  ASSERT_EQ(request_.media.size(), 2u);
  EXPECT_EQ(request_.media[0].hash, "aaaa");
  EXPECT_EQ(request_.media[0].offset, 15u);
  EXPECT_EQ(request_.media[0].length, 391u);
  EXPECT_EQ(request_.media[1].hash, "");
}

TEST_F(GrpcParsers, EmbedNeedsTokens) {
  ASSERT_TRUE(Parse(kEmbed, Grpc(Len(1, "id") + Len(2, Packed(2, {1, 2})))).ok());
  EXPECT_EQ(request_.api, Api::kEmbeddings);
  EXPECT_THAT(request_.prompt_tokens, ElementsAre(1, 2));
  EXPECT_THAT(Parse(kEmbed, Grpc(Len(1, "id"))).message(), HasSubstr("tokenized"));
}

TEST_F(GrpcParsers, MalformedBodiesAreRefused) {
  const std::string good = Len(2, Packed(2, {5})) + Len(4, Num(8, 1));
  for (size_t cut = 1; cut < good.size(); ++cut) {
    const Status status = Parse(kGenerate, Grpc(std::string_view(good).substr(0, cut)));
    // A cut between two fields leaves a message.
    EXPECT_EQ(status.ok(), cut == Len(2, Packed(2, {5})).size()) << cut;
  }
  EXPECT_FALSE(Parse(kGenerate, good).ok());
  EXPECT_FALSE(Parse(kGenerate, Grpc(Len(2, Len(2, "\x80")))).ok());
  EXPECT_FALSE(Parse(kGenerate, Grpc(Len(3, "x") + Len(7, "\x0b"))).ok());
}

TEST_F(GrpcParsers, UsageOfStreamsAndWholeAnswers) {
  ASSERT_TRUE(Parse(kGenerate, Grpc(Len(3, "x"))).ok());
  const std::string stream = Grpc(Len(1, Packed(1, {9}))) +
                             Grpc(Len(1, Packed(1, {9}) + Num(2, 30) + Num(3, 12) + Num(4, 16)));
  const std::string whole = Grpc(Len(2, Len(2, "stop") + Num(3, 30) + Num(4, 12) + Num(5, 16)));
  for (size_t step : {1, 3, 1000}) {
    EXPECT_THAT(UsageOf(stream, step), ElementsAre(30, 12, 16)) << step;
    EXPECT_THAT(UsageOf(whole, step), ElementsAre(30, 12, 16)) << step;
  }
  EXPECT_THAT(UsageOf("nonsense that is no frame", 4), ElementsAre(-1, -1, -1));
  ASSERT_TRUE(Parse(kEmbed, Grpc(Len(2, Packed(2, {1})))).ok());
  EXPECT_THAT(UsageOf(Grpc(Len(1, "ffff") + Num(2, 4) + Num(3, 768)), 2), ElementsAre(4, -1, -1));
}

std::string Vertex(std::string_view json, const std::string& after = "") {
  return Grpc(Len(1, "projects/p/endpoints/e") +
              Len(2, Len(1, "application/json") + Len(2, json) + after));
}

TEST_F(GrpcParsers, VertexHoldsAnOpenAiBody) {
  ASSERT_TRUE(Parse(kChat, Vertex(R"({"model":"m","stream":true,"messages":[{}]})")).ok());
  EXPECT_EQ(request_.api, Api::kChat);
  EXPECT_EQ(request_.model, "m");
  EXPECT_TRUE(request_.streaming);
  EXPECT_EQ(request_.prompt_json, "[{}]");
  ASSERT_TRUE(Parse(kRaw, Vertex(R"({"model":"m","input":"hi"})")).ok());
  EXPECT_EQ(request_.api, Api::kResponses);
  EXPECT_EQ(request_.prompt_json, "\"hi\"");
}

TEST_F(GrpcParsers, VertexWithoutABodyInsideIsRefused) {
  EXPECT_THAT(Parse(kChat, Grpc(Len(1, "e"))).message(), HasSubstr("HttpBody"));
  EXPECT_THAT(Parse(kChat, Grpc(Len(2, Len(1, "application/json")))).message(),
              HasSubstr("with data"));
  EXPECT_THAT(Parse(kChat, Vertex("[]")).message(), HasSubstr("invalid JSON"));
  EXPECT_FALSE(Parse(kChat, "{}").ok());
}

// What a reader of the protocol finds in an edited body.
std::string JsonInside(const std::string& body) {
  const StatusOr<std::string_view> message = UnaryGrpcMessage(body);
  EXPECT_TRUE(message.ok()) << message.status().ToString();
  std::string out;
  WireFields outer(message.value_or(""));
  while (outer.Next()) {
    if (!outer.Is(2)) continue;
    WireFields inner(outer.bytes());
    while (inner.Next()) {
      if (inner.Is(2)) out = inner.bytes();
    }
    EXPECT_TRUE(inner.ok());
  }
  EXPECT_TRUE(outer.ok());
  return out;
}

TEST_F(GrpcParsers, EditsInsideVertexCarryTheLengthsAlong) {
  // Sizes around the borders at which a length takes one more byte.
  for (size_t size = 40; size < 300; ++size) {
    const std::string json = R"({"model":"m","kv_transfer_params":{"a":1},"input":")" +
                             std::string(size - 40, 'x') + "\"}";
    ASSERT_TRUE(Parse(kRaw, Vertex(json, Len(3, "extension"))).ok());
    const std::string longer(90, 'y');
    const std::string edited = Applied(body_, EditsOf(request_, longer));
    EXPECT_EQ(JsonInside(edited),
              R"({"model":")" + longer + R"(","input":")" + std::string(size - 40, 'x') + "\"}");
  }
  ASSERT_TRUE(Parse(kRaw, Vertex(R"({"input":"x"})")).ok());
  EXPECT_EQ(JsonInside(Applied(body_, EditsOf(request_, "new"))), R"({"model":"new","input":"x"})");
  ASSERT_TRUE(Parse(kRaw, Vertex(R"({"model":"m","input":"x"})")).ok());
  EXPECT_THAT(EditsOf(request_, ""), IsEmpty());
}

class GrpcDirector : public DirectorFixture {
 protected:
  void StartBoth() {
    Start(Two(),
          {"{type: vllmgrpc-parser}", "{type: vertexai-parser}", "{type: prefix-cache-scorer}"},
          "requestHandler: {parsers: [{pluginRef: vllmgrpc-parser}, {pluginRef: "
          "vertexai-parser}]}\n");
  }
};

TEST_F(GrpcDirector, VllmNeedsNoModelAndIsNotRewritten) {
  StartBoth();
  const std::string body = Grpc(Len(2, Packed(2, {1, 2, 3})));
  const Routing r = Route(body, {{":path", kGenerate}, {"x-llm-d-model-name-rewrite", "tuned"}});
  ASSERT_TRUE(r.ok) << r.denial.message;
  EXPECT_THAT(r.body_edits, IsEmpty());
  std::string out;
  director_->OnResponseHeaders(r.state, 200, {{"content-type", "application/grpc"}});
  const std::string answer = Grpc(Len(2, Num(3, 3) + Num(4, 7)));
  director_->OnResponseBody(r.state, answer, true, &out);
  EXPECT_THAT(metrics_.Expose(), HasSubstr("llm_d_epp_request_output_tokens_sum"));
  EXPECT_THAT(metrics_.Expose(), ::testing::ContainsRegex("output_tokens_sum[^\n]* 7.0\n"));
}

TEST_F(GrpcDirector, VertexsUsageIsReadAcrossMessagesAndChunks) {
  StartBoth();
  const Routing r = Route(Vertex(R"({"model":"m","messages":[{}]})"), {{":path", kChat}});
  ASSERT_TRUE(r.ok) << r.denial.message;
  std::string answer, out;
  const std::string text =
      "data: {\"usage\": {\"prompt_tokens\": 3, \"completion_tokens\": 5}}\n\n";
  for (size_t at = 0; at < text.size(); at += 7) answer += Grpc(Len(2, text.substr(at, 7)));
  for (char byte : answer) director_->OnResponseBody(r.state, std::string(1, byte), false, &out);
  director_->OnResponseBody(r.state, "", true, &out);
  EXPECT_THAT(metrics_.Expose(), ::testing::ContainsRegex("output_tokens_sum[^\n]* 5.0\n"));
}

TEST_F(GrpcDirector, VertexIsRewrittenButItsAnswerLeftAlone) {
  StartBoth();
  const Routing r = Route(Vertex(R"({"model":"m","messages":[{}]})"),
                          {{":path", kChat}, {"x-llm-d-model-name-rewrite", "tuned"}});
  ASSERT_TRUE(r.ok) << r.denial.message;
  EXPECT_EQ(JsonInside(Applied(body_, r.body_edits)), R"({"model":"tuned","messages":[{}]})");
  std::string out;
  const std::string answer = Grpc(Len(2, R"({"model":"tuned","usage":{"completion_tokens":5}})"));
  EXPECT_FALSE(director_->OnResponseBody(r.state, answer, true, &out));
  EXPECT_THAT(metrics_.Expose(), ::testing::ContainsRegex("output_tokens_sum[^\n]* 5.0\n"));
  EXPECT_EQ(Route(Vertex("{}"), {{":path", kChat}}).denial.http_status, 400);
}

}  // namespace
}  // namespace llmd::sched
