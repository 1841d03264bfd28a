// A scripted engine and a byte tokenizer, so that serving is tested without a model. The test plays
// the engine thread.
#pragma once

#include <array>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "llmd/engine/engine.h"
#include "llmd/engine/serving/context.h"
#include "llmd/engine/serving/metrics.h"
#include "llmd/engine/serving/reply.h"

namespace llmd::engine::serving {

inline constexpr TokenId kEos = 256;

// One token per byte; 256 is the control token "<eos>", 257 spells "END".
class ByteTokenizer final : public text::Tokenizer {
 public:
  ByteTokenizer() {
    for (int i = 0; i < 256; ++i) bytes_.emplace_back(1, static_cast<char>(i));
    bytes_.emplace_back("<eos>");
    bytes_.emplace_back("END");
    spec_.eos = kEos;
  }
  void Encode(std::string_view text, bool, bool, std::vector<TokenId>& out) const override {
    for (const char c : text) out.push_back(static_cast<unsigned char>(c));
  }
  using Tokenizer::Encode;
  StatusOr<std::string_view> TokenBytes(TokenId id) const override {
    if (id < 0 || id >= vocab_size()) return OutOfRange("no token " + std::to_string(id));
    return std::string_view(bytes_[id]);
  }
  StatusOr<std::string> Decode(std::span<const TokenId> ids, bool skip_special) const override {
    std::string out;
    for (const TokenId id : ids) {
      if (!(skip_special && IsSpecial(id))) out += bytes_.at(id);
    }
    return out;
  }
  std::string_view TokenString(TokenId id) const override { return bytes_.at(id); }
  TokenId IdOf(std::string_view token) const override {
    return token.size() == 1 ? static_cast<unsigned char>(token[0]) : -1;
  }
  bool IsSpecial(TokenId id) const override { return id == kEos; }
  int vocab_size() const override { return static_cast<int>(bytes_.size()); }
  const text::TokenizerSpec& spec() const override { return spec_; }
  size_t longest_token_bytes() const override { return 5; }

 private:
  std::vector<std::string> bytes_;
  text::TokenizerSpec spec_;
};

// Keeps what was submitted and aborted; Emit delivers an output as the engine thread would.
class FakeEngine final : public Engine {
 public:
  Status Submit(Request request) override {
    if (refuse_after >= 0 && static_cast<int>(submitted.size()) >= refuse_after) {
      return ResourceExhausted("the queue is full");
    }
    if (taken.contains(request.id)) return AlreadyExists("in flight");
    order.push_back(request.id);
    submitted.emplace(request.id, std::move(request));
    return OkStatus();
  }
  void Abort(std::string_view id) override { aborted.emplace_back(id); }
  void DiscardTransfer(const json::Value& params) override { discarded.push_back(params); }
  EngineStats Stats() const override { return stats; }
  bool healthy() const override { return true; }
  const EngineOptions& options() const override { return engine_options; }
  const Model& model() const override { std::abort(); }
  Status ResetPrefixCache() override { return OkStatus(); }
  void Stop() override {}

  void Emit(size_t child, Output output) {
    submitted.at(order.at(child)).on_output(std::move(output));
  }
  void EmitText(size_t child, std::string_view text, FinishReason finish = FinishReason::kNone) {
    Output output;
    for (const char c : text) output.tokens.push_back(static_cast<unsigned char>(c));
    output.finish = finish;
    Emit(child, std::move(output));
  }

  std::map<std::string, Request> submitted;
  std::vector<std::string> order, aborted;
  std::vector<json::Value> discarded;
  EngineStats stats{.total_blocks = 10, .free_blocks = 10};
  EngineOptions engine_options;
  std::set<std::string> taken;  // ids in flight
  int refuse_after = -1;
};

// Everything a serving test needs, wired.
struct Bench {
  explicit Bench(std::string_view chat_template =
                     "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
                     "{% if add_generation_prompt %}<assistant>{% endif %}") {
    if (!chat_template.empty()) templates.Add("", chat_template);
    sink = std::make_shared<MemoryLogSink>();
    ServingOptions options;
    options.model_names = {"m", "alias"};
    options.model_root = "/m.gguf";
    options.max_model_len = 100;
    options.vocab_size = tokenizer.vocab_size();
    context = std::make_unique<ServingContext>(ServingContext{
        engine, tokenizer, templates, metrics, clock, Logger(sink, LogLevel::kInfo), options});
  }
  StatusOr<std::unique_ptr<Reply>> Complete(std::string_view body, RequestMeta meta = {}) {
    return Begin(BeginCompletion, body, std::move(meta));
  }
  StatusOr<std::unique_ptr<Reply>> Chat(std::string_view body, RequestMeta meta = {}) {
    return Begin(BeginChat, body, std::move(meta));
  }
  using BeginFn = openai::MaybeError (*)(const ServingContext&, std::string_view,
                                         const RequestMeta&, std::unique_ptr<Reply>*);
  StatusOr<std::unique_ptr<Reply>> Begin(BeginFn begin, std::string_view body, RequestMeta meta) {
    std::unique_ptr<Reply> reply;
    meta.arrival = clock.Now();
    if (meta.request_id.empty()) meta.request_id = "r";
    error = begin(*context, body, meta, &reply);
    if (error) return InvalidArgument(error->message);
    return reply;
  }

  FakeClock clock;
  ByteTokenizer tokenizer;
  FakeEngine engine;
  MetricsRegistry registry;
  ServingMetrics metrics{registry, engine, "m", 0, 1000, "auto"};
  text::ChatTemplates templates;
  std::shared_ptr<MemoryLogSink> sink;
  std::unique_ptr<ServingContext> context;
  openai::MaybeError error;
};

// The whole reply of a finished plain request, parsed.
inline json::Value Whole(Reply& reply) {
  std::string out;
  if (!reply.Advance(out)) return "not finished";
  auto parsed = json::Parse(out);
  return parsed.ok() ? std::move(*parsed) : json::Value(out);
}

// The JSON of each frame so far; "[DONE]" as a string.
inline std::vector<json::Value> Frames(Reply& reply, bool* done = nullptr) {
  std::string out;
  const bool finished = reply.Advance(out);
  if (done != nullptr) *done = finished;
  std::vector<json::Value> frames;
  for (size_t at = 0; at < out.size();) {
    const size_t end = out.find("\n\n", at);
    const std::string_view data = std::string_view(out).substr(at + 6, end - at - 6);
    auto parsed = json::Parse(data);
    frames.push_back(parsed.ok() ? std::move(*parsed) : json::Value(data));
    if (data == "[DONE]") frames.back() = "[DONE]";
    at = end + 2;
  }
  return frames;
}

inline std::string Text(const json::Value& frame) {
  return frame["choices"].AsArray().at(0)["text"].AsString();
}

}  // namespace llmd::engine::serving
