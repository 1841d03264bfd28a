// vLLM's gRPC engine service (vllm_engine.proto, package vllm.grpc.engine): prompt, limits and
// media hashes of Generate and Embed requests, usage of their answers. Its messages name no model.
#include "llmd/proto_wire.h"
#include "llmd/sched/parser.h"
#include "plugins/builtin.h"
#include "plugins/common.h"
#include "plugins/parser/grpc_frame.h"

namespace llmd::sched {
namespace {

constexpr std::string_view kGenerate = "vllm.grpc.engine.VllmEngine/Generate";
constexpr std::string_view kEmbed = "vllm.grpc.engine.VllmEngine/Embed";

Status Malformed(std::string_view message) {
  return InvalidArgument("gRPC body: not a well-formed " + std::string(message));
}

// TokenizedInput{original_text = 1, input_ids = 2 (packed or not)}.
Status ReadTokens(std::string_view message, std::vector<uint32_t>& tokens) {
  WireFields f(message);
  while (f.Next()) {
    if (f.field() != 2) continue;
    if (f.type() == WireType::kVarint) tokens.push_back(static_cast<uint32_t>(f.number()));
    const bool packed =
        f.type() != WireType::kBytes || WireFields::Packed(f.bytes(), [&](uint64_t v) {
          tokens.push_back(static_cast<uint32_t>(v));
        });
    if (!packed) return Malformed("TokenizedInput");
  }
  return f.ok() ? OkStatus() : Malformed("TokenizedInput");
}

// PlaceholderRange{offset = 1, length = 2}.
MediaItem ReadPlace(std::string_view message) {
  MediaItem item;
  WireFields f(message);
  while (f.Next()) {
    if (f.IsNumber(1)) item.offset = f.number();
    if (f.IsNumber(2)) item.length = f.number();
  }
  return item;
}

// MultimodalInputs{mm_placeholders = 5, mm_hashes = 6}: the n-th hash belongs to the n-th place.
Status ReadMedia(std::string_view message, std::vector<MediaItem>& media) {
  std::vector<std::string_view> hashes;
  WireFields f(message);
  while (f.Next()) {
    if (f.type() != WireType::kBytes) continue;
    if (f.field() == 5) media.push_back(ReadPlace(f.bytes()));
    if (f.field() == 6) hashes.push_back(f.bytes());
  }
  for (size_t i = 0; i < std::min(media.size(), hashes.size()); ++i)
    media[i].hash.assign(hashes[i]);
  return f.ok() ? OkStatus() : Malformed("MultimodalInputs");
}

// SamplingParams{max_tokens = 8}.
Status ReadSampling(std::string_view message, RequestContext& request) {
  WireFields f(message);
  while (f.Next()) {
    if (f.IsNumber(8)) request.max_tokens = static_cast<int64_t>(static_cast<uint32_t>(f.number()));
  }
  return f.ok() ? OkStatus() : Malformed("SamplingParams");
}

// GenerateRequest{tokenized = 2, text = 3, sampling_params = 4, stream = 5, mm_inputs = 7}.
Status ReadGenerate(std::string_view message, RequestContext& request) {
  WireFields f(message);
  while (f.Next()) {
    const bool bytes = f.type() == WireType::kBytes;
    if (f.field() == 2 && bytes) {
      request.has_prompt_tokens = true;
      LLMD_RETURN_IF_ERROR(ReadTokens(f.bytes(), request.prompt_tokens));
    } else if (f.field() == 3 && bytes) {
      request.prompt_text = f.bytes();
    } else if (f.field() == 4 && bytes) {
      LLMD_RETURN_IF_ERROR(ReadSampling(f.bytes(), request));
    } else if (f.field() == 5 && f.type() == WireType::kVarint) {
      request.streaming = f.number() != 0;
    } else if (f.field() == 7 && bytes) {
      LLMD_RETURN_IF_ERROR(ReadMedia(f.bytes(), request.media));
    }
  }
  if (!f.ok()) return Malformed("GenerateRequest");
  if (!request.has_prompt_tokens && request.prompt_text.data() == nullptr)
    return InvalidArgument("GenerateRequest: expected tokenized or text input");
  return OkStatus();
}

// EmbedRequest{tokenized = 2}.
Status ReadEmbed(std::string_view message, RequestContext& request) {
  WireFields f(message);
  while (f.Next()) {
    if (f.field() != 2 || f.type() != WireType::kBytes) continue;
    request.has_prompt_tokens = true;
    LLMD_RETURN_IF_ERROR(ReadTokens(f.bytes(), request.prompt_tokens));
  }
  if (!f.ok()) return Malformed("EmbedRequest");
  if (!request.has_prompt_tokens) return InvalidArgument("EmbedRequest: expected tokenized input");
  return OkStatus();
}

// Counts at fields `prompt`, + 1 and + 2 of a chunk, a whole answer or an embedding; those of
// chunks may be nought before the last.
void ReadCounts(std::string_view message, uint32_t prompt, bool embedding, Usage* usage) {
  Usage read;
  WireFields f(message);
  while (f.Next()) {
    if (f.type() != WireType::kVarint || f.field() < prompt || f.number() > UINT32_MAX) continue;
    const auto count = static_cast<int64_t>(f.number());
    if (f.field() == prompt) read.prompt_tokens = count;
    if (f.field() == prompt + 1 && !embedding) read.completion_tokens = count;
    if (f.field() == prompt + 2 && !embedding) read.cached_tokens = count;
  }
  if (!f.ok() || !read.any()) return;
  if (read.prompt_tokens >= 0) usage->prompt_tokens = read.prompt_tokens;
  if (read.completion_tokens >= 0) usage->completion_tokens = read.completion_tokens;
  if (read.cached_tokens >= 0) usage->cached_tokens = read.cached_tokens;
}

// GenerateResponse{chunk = 1, complete = 2} or EmbedResponse{embedding = 1, prompt_tokens = 2}:
// the call tells which.
class AnswerReader final : public ResponseReader {
 public:
  explicit AnswerReader(bool embedding) : embedding_(embedding) {}
  void Feed(std::string_view chunk, Usage* usage) override {
    frames_.Feed(chunk, [&](std::string_view message) {
      if (embedding_) return ReadCounts(message, 2, true, usage);
      WireFields f(message);
      while (f.Next()) {
        if (f.type() == WireType::kBytes && (f.field() == 1 || f.field() == 2))
          ReadCounts(f.bytes(), f.field() == 1 ? 2 : 3, false, usage);
      }
    });
  }

 private:
  const bool embedding_;
  GrpcFrames frames_;
};

class VllmGrpcParser final : public Parser {
 public:
  std::vector<std::string_view> PathSuffixes() const override { return {kGenerate, kEmbed}; }
  Status Parse(RequestContext& request) override {
    request.names_model = false;
    LLMD_ASSIGN_OR_RETURN(const std::string_view message, UnaryGrpcMessage(request.body));
    if (request.path.ends_with(kEmbed)) {
      request.api = Api::kEmbeddings;
      return ReadEmbed(message, request);
    }
    request.api = Api::kCompletions;
    return ReadGenerate(message, request);
  }
  void ReadUsage(std::string_view, Usage*) const override {}
  std::unique_ptr<ResponseReader> MakeReader(const RequestContext& request) const override {
    return std::make_unique<AnswerReader>(request.api == Api::kEmbeddings);
  }
};

}  // namespace

Status RegisterVllmGrpcParser(PluginRegistry& registry) {
  return AddPlugin(registry,
                   {.type = "vllmgrpc-parser",
                    .kind = "parser",
                    .help = "vLLM's gRPC engine service: Generate and Embed. Its messages "
                            "name no model, so none is required or rewritten.",
                    .make = Simple<VllmGrpcParser>()});
}

}  // namespace llmd::sched
