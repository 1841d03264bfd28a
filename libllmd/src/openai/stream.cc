#include "llmd/openai/stream.h"

#include "writer.h"

namespace llmd::openai {
namespace {

std::string Prefix(const ReplyHead& head, std::string_view object) {
  std::string out = R"(data: {"id":)";
  writer::Text(out, head.id);
  out += R"(,"object":")";
  out += object;
  out += R"(","created":)";
  writer::Int(out, head.created);
  out += R"(,"model":)";
  writer::Text(out, head.model);
  out += R"(,"choices":[)";
  return out;
}

std::string Fingerprint(const ReplyHead& head) {
  if (head.system_fingerprint.empty()) return {};
  std::string out = R"(,"system_fingerprint":)";
  writer::Text(out, head.system_fingerprint);
  return out;
}

void AppendUsage(std::string& out, const Usage* usage) {
  if (usage == nullptr) return;
  out += R"(,"usage":)";
  writer::UsageObject(out, *usage, /*with_nulls=*/false);
}

constexpr std::string_view kEnd = "}\n\n";

}  // namespace

CompletionChunkWriter::CompletionChunkWriter(const ReplyHead& head)
    : prefix_(Prefix(head, "text_completion")), fingerprint_(Fingerprint(head)) {}

void CompletionChunkWriter::Chunk(std::string& out, const CompletionChoice& choice,
                                  const Usage* usage, bool last) const {
  out += prefix_;
  out += R"({"index":)";
  writer::Int(out, choice.index);
  out += R"(,"text":)";
  writer::Text(out, choice.text);
  out += R"(,"logprobs":)";
  writer::CompletionLogprobs(out, choice.logprobs, choice.text_offset);
  out += R"(,"finish_reason":)";
  writer::TextOrNull(out, choice.finish_reason);
  out += R"(,"stop_reason":)";
  writer::Stop(out, choice.stop_reason);
  out += R"(,"prompt_token_ids":)";
  writer::IdsOrNull(out, choice.prompt_token_ids);
  out += R"(,"token_ids":)";
  writer::IdsOrNull(out, choice.token_ids);
  out += "}]";
  if (last) out += fingerprint_;
  AppendUsage(out, usage);
  out += kEnd;
}

void CompletionChunkWriter::UsageChunk(std::string& out, const Usage& usage) const {
  out += prefix_;
  out += ']';
  AppendUsage(out, &usage);
  out += kEnd;
}

ChatChunkWriter::ChatChunkWriter(const ReplyHead& head)
    : prefix_(Prefix(head, "chat.completion.chunk")), fingerprint_(Fingerprint(head)) {}

void ChatChunkWriter::Role(std::string& out, int index, std::string_view role,
                           const std::optional<TokenIds>& prompt_token_ids,
                           const std::optional<std::string>& prompt_text,
                           const Usage* usage) const {
  out += prefix_;
  out += R"({"index":)";
  writer::Int(out, index);
  out += R"(,"delta":{"role":)";
  writer::Text(out, role);
  out += R"(,"content":""},"logprobs":null,"finish_reason":null}])";
  AppendUsage(out, usage);
  out += R"(,"prompt_token_ids":)";
  writer::IdsOrNull(out, prompt_token_ids);
  out += R"(,"prompt_text":)";
  if (prompt_text) {
    writer::Text(out, *prompt_text);
  } else {
    out += "null";
  }
  out += kEnd;
}

void ChatChunkWriter::Content(std::string& out, const ChatChoice& choice, const Usage* usage,
                              bool last) const {
  out += prefix_;
  out += R"({"index":)";
  writer::Int(out, choice.index);
  out += R"(,"delta":{"content":)";
  writer::Text(out, choice.content);
  out += R"(},"logprobs":)";
  writer::ChatLogprobs(out, choice.logprobs);
  out += R"(,"finish_reason":)";
  writer::TextOrNull(out, choice.finish_reason);
  if (!choice.finish_reason.empty()) {
    out += R"(,"stop_reason":)";
    writer::Stop(out, choice.stop_reason);
  }
  out += R"(,"token_ids":)";
  writer::IdsOrNull(out, choice.token_ids);
  out += "}]";
  if (last) out += fingerprint_;
  AppendUsage(out, usage);
  out += kEnd;
}

void ChatChunkWriter::UsageChunk(std::string& out, const Usage& usage) const {
  out += prefix_;
  out += ']';
  AppendUsage(out, &usage);
  out += kEnd;
}

void AppendErrorFrame(std::string& out, const ApiError& error) {
  out += "data: ";
  out += ErrorBody(error);
  out += "\n\n";
}

void AppendDone(std::string& out) {
  out += "data: [DONE]\n\n";
}

}  // namespace llmd::openai
