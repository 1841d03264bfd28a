// Every parser of request bodies, what is estimated from them, the edits made to them, and the
// usage read from answers. The first byte chooses the path, the second how the answer is split.
#include <array>

#include "director/body_edits.h"
#include "director/response_scan.h"
#include "fuzz/fuzz.h"
#include "llmd/sched/parser.h"
#include "plugins/builtin.h"
#include "plugins/producer/token_estimate.h"

namespace {

using namespace llmd;         // NOLINT
using namespace llmd::sched;  // NOLINT

struct Case {
  const char* type;
  const char* path;
};
constexpr std::array<Case, 17> kCases = {{
    {"openai-parser", "/v1/chat/completions"},
    {"openai-parser", "/v1/completions"},
    {"openai-parser", "/v1/embeddings"},
    {"openai-parser", "/v1/responses"},
    {"openai-parser", "/v1/conversations"},
    {"openai-parser", "/v1/chat/completions/render"},
    {"openai-parser", "/v1/images/generations"},
    {"anthropic-parser", "/v1/messages"},
    {"anthropic-parser", "/v1/messages/count_tokens"},
    {"vllmhttp-parser", "/inference/v1/generate"},
    {"sglanghttp-parser", "/generate"},
    {"vllmgrpc-parser", "/vllm.grpc.engine.VllmEngine/Generate"},
    {"vllmgrpc-parser", "/vllm.grpc.engine.VllmEngine/Embed"},
    {"vertexai-parser", "/x.PredictionService/ChatCompletions"},
    {"vertexai-parser", "/x.PredictionService/RawPredict"},
    {"vertexai-parser", "/x.PredictionService/StreamRawPredict"},
    {"passthrough-parser", "/any"},
}};

// Parsers ask nothing of their surroundings.
class NoEnv final : public PluginEnv {
 public:
  DataKey Produce(std::string_view) override { return kNoKey; }
  DataKey Consume(std::string_view, std::string_view, bool) override { return kNoKey; }
  StatusOr<Plugin*> Dependency(std::string_view) override { return NotFound("none"); }
  void Warn(std::string) override {}
};

Parser& ParserOf(const std::string& type) {
  static std::map<std::string, std::unique_ptr<Plugin>> made;
  std::unique_ptr<Plugin>& plugin = made[type];
  if (!plugin) {
    PluginRegistry registry;
    for (auto add : {RegisterOpenAiParser, RegisterAnthropicParser, RegisterVllmHttpParser,
                     RegisterSglangHttpParser, RegisterVllmGrpcParser, RegisterVertexAiParser,
                     RegisterPassthroughParser})
      FUZZ_EXPECT(add(registry).ok());
    NoEnv env;
    PluginArgs args{type, type, config::Node(), env};
    plugin = std::move(*(*registry.Find(type))->make(args));
  }
  return dynamic_cast<Parser&>(*plugin);
}

std::string Applied(std::string body, const std::vector<BodyEdit>& edits) {
  size_t last = body.size();
  for (auto it = edits.rbegin(); it != edits.rend(); ++it) {
    FUZZ_EXPECT(it->begin <= it->end && it->end <= last);
    last = it->begin;
    body.replace(it->begin, it->end - it->begin, it->text);
  }
  return body;
}

Status Read(const Case& c, std::string_view body, RequestContext& request) {
  request.Reset(0);
  request.path = c.path;
  request.body = body;
  return ParserOf(c.type).Parse(request);
}

void CheckTokens(const RequestContext& request) {
  Attribute out;
  if (!EstimateTokens(request, MediaEstimate(), out).ok()) return;
  FUZZ_EXPECT(!out.bounds.empty() || out.tokens.empty());
  for (size_t i = 0; i < out.bounds.size(); ++i)
    FUZZ_EXPECT(out.bounds[i] <= out.tokens.size() &&
                (i == 0 || out.bounds[i - 1] <= out.bounds[i]));
}

// The edited body is read again as one with the new model, and holds no routing fields.
void CheckEdits(const Case& c, std::string_view body, const RequestContext& request) {
  const std::string edited = Applied(std::string(body), EditsOf(request, "other"));
  RequestContext again;
  const Status status = Read(c, edited, again);
  FUZZ_EXPECT(status.ok());
  if (request.api == Api::kNone || !request.names_model) {
    FUZZ_EXPECT(edited == body);
    return;
  }
  FUZZ_EXPECT(again.model == "other");
  for (const json::ScannedMember& m : again.members)
    FUZZ_EXPECT(m.KeyText(edited) != "kv_transfer_params");
}

Usage UsageOf(const Case& c, const RequestContext& request, std::string_view answer,
              uint32_t seed) {
  Usage usage;
  const Parser& parser = ParserOf(c.type);
  const std::unique_ptr<ResponseReader> reader = parser.MakeReader(request);
  UsageScanner scanner;
  const auto feed = [&](std::string_view piece) {
    if (reader) return reader->Feed(piece, &usage);
    scanner.Feed(piece, [&](std::string_view object) { parser.ReadUsage(object, &usage); });
  };
  seed == 0 ? feed(answer) : llmd::fuzz::InPieces(answer, seed, feed);
  return usage;
}

}  // namespace

FUZZ_TARGET(sched_body) {
  const Case& c = kCases[llmd::fuzz::TakeByte(input) % kCases.size()];
  const uint8_t seed = llmd::fuzz::TakeByte(input);
  RequestContext request;
  if (Read(c, input, request).ok()) {
    CheckTokens(request);
    CheckEdits(c, input, request);
  }
  const Usage whole = UsageOf(c, request, input, 0), split = UsageOf(c, request, input, seed + 1u);
  FUZZ_EXPECT(whole.prompt_tokens == split.prompt_tokens);
  FUZZ_EXPECT(whole.completion_tokens == split.completion_tokens);
  FUZZ_EXPECT(whole.cached_tokens == split.cached_tokens);
}
