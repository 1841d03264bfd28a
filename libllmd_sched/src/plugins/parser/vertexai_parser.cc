// Vertex AI's prediction service over gRPC: each request holds a google.api.HttpBody whose data is
// an OpenAI body (google/cloud/aiplatform/v1beta1/prediction_service.proto).
#include <array>

#include "director/response_scan.h"
#include "llmd/proto_wire.h"
#include "llmd/sched/parser.h"
#include "plugins/builtin.h"
#include "plugins/common.h"
#include "plugins/parser/grpc_frame.h"
#include "plugins/parser/json_parser.h"

namespace llmd::sched {
namespace {

struct Method {
  std::string_view suffix;
  Api api;
};
constexpr std::array<Method, 3> kMethods = {{
    {"PredictionService/ChatCompletions", Api::kChat},
    {"PredictionService/RawPredict", Api::kResponses},
    {"PredictionService/StreamRawPredict", Api::kResponses},
}};
constexpr uint32_t kHttpBodyField = 2;  // of all three requests; 1 is the endpoint's name
constexpr uint32_t kDataField = 2;      // of HttpBody; 1 is the content type

// The last field of that number (later ones win); its length stands in `frame`.
bool FindBytes(std::string_view body, std::string_view message, uint32_t number,
               std::string_view* bytes, FrameLength* frame) {
  WireFields f(message);
  const auto base = static_cast<size_t>(message.data() - body.data());
  bool found = false;
  while (f.Next()) {
    if (!f.Is(number)) continue;
    found = true;
    *bytes = f.bytes();
    *frame = {{base + f.length().begin, base + f.length().end}, f.bytes().size(), false};
  }
  return f.ok() && found;
}

// An answer is HttpBody messages whose data, one after the other, is the JSON or SSE text.
class AnswerReader final : public ResponseReader {
 public:
  void Feed(std::string_view chunk, Usage* usage) override {
    frames_.Feed(chunk, [&](std::string_view message) {
      WireFields f(message);
      while (f.Next()) {
        if (!f.Is(kDataField)) continue;
        scanner_.Feed(f.bytes(), [&](std::string_view object) { ReadJsonUsage(object, usage); });
      }
    });
  }

 private:
  GrpcFrames frames_;
  UsageScanner scanner_;
};

class VertexAiParser final : public Parser {
 public:
  std::vector<std::string_view> PathSuffixes() const override {
    std::vector<std::string_view> out;
    out.reserve(kMethods.size());
    for (const Method& m : kMethods) out.push_back(m.suffix);
    return out;
  }
  Status Parse(RequestContext& request) override {
    for (const Method& m : kMethods) {
      if (request.path.ends_with(m.suffix)) request.api = m.api;
    }
    LLMD_ASSIGN_OR_RETURN(const std::string_view message, UnaryGrpcMessage(request.body));
    std::string_view http_body, data;
    FrameLength outer, inner;
    if (!FindBytes(request.body, message, kHttpBodyField, &http_body, &outer))
      return InvalidArgument("gRPC body: expected a message with an HttpBody");
    if (!FindBytes(request.body, http_body, kDataField, &data, &inner))
      return InvalidArgument("gRPC body: expected an HttpBody with data");
    request.frames = {inner, outer, {{1, kGrpcHeaderBytes}, message.size(), true}};
    return ParseJson(request, static_cast<size_t>(data.data() - request.body.data()), data.size());
  }
  void ReadUsage(std::string_view, Usage*) const override {}
  std::unique_ptr<ResponseReader> MakeReader(const RequestContext&) const override {
    return std::make_unique<AnswerReader>();
  }
};

}  // namespace

Status RegisterVertexAiParser(PluginRegistry& registry) {
  return AddPlugin(registry,
                   {.type = "vertexai-parser",
                    .kind = "parser",
                    .help = "Vertex AI's gRPC prediction service: the JSON inside is read as chat "
                            "(ChatCompletions) or Responses (RawPredict, StreamRawPredict).",
                    .make = Simple<VertexAiParser>()});
}

}  // namespace llmd::sched
