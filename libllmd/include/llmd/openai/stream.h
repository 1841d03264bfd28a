// Chunks of a streamed reply, as SSE frames ("data: {…}\n\n") appended to a string. One ChunkWriter
// per request keeps what every chunk repeats already serialised. Thread-compatible.
#pragma once

#include <string>
#include <string_view>

#include "llmd/openai/error.h"
#include "llmd/openai/response.h"

namespace llmd::openai {

class CompletionChunkWriter {
 public:
  explicit CompletionChunkWriter(const ReplyHead& head);
  // `usage` null = no usage member. `last` adds the system fingerprint.
  void Chunk(std::string& out, const CompletionChoice& choice, const Usage* usage, bool last) const;
  // The extra chunk before the end: no choices, usage only.
  void UsageChunk(std::string& out, const Usage& usage) const;

 private:
  std::string prefix_;  // up to and with "choices":[
  std::string fingerprint_;
};

class ChatChunkWriter {
 public:
  explicit ChatChunkWriter(const ReplyHead& head);
  // The first chunk of a choice: its role and empty content.
  void Role(std::string& out, int index, std::string_view role,
            const std::optional<TokenIds>& prompt_token_ids,
            const std::optional<std::string>& prompt_text, const Usage* usage) const;
  // Content; with a finish reason also stop_reason, and `last` adds the system fingerprint.
  void Content(std::string& out, const ChatChoice& choice, const Usage* usage, bool last) const;
  void UsageChunk(std::string& out, const Usage& usage) const;

 private:
  std::string prefix_;
  std::string fingerprint_;
};

// An error in mid-stream. The stream still ends in AppendDone.
void AppendErrorFrame(std::string& out, const ApiError& error);
void AppendDone(std::string& out);

}  // namespace llmd::openai
