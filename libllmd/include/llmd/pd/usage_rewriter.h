// Replaces cached_tokens in a decode leg's answer by the prefill leg's figure: the decode engine
// counts transferred blocks as cached, which is not what the client wants to know. Byte splices;
// everything else passes untouched.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace llmd::pd {

// `body` with usage.prompt_tokens_details.cached_tokens (or input_tokens_details, and the same
// inside "response") replaced. Unchanged when it has no such number, or is not a JSON object.
std::string RewriteCachedTokens(std::string_view body, uint64_t cached_tokens);

// The same over a body that comes in pieces. Thread-compatible.
class UsageRewriter {
 public:
  enum class Kind { kJson, kSse };
  // JSON bodies are held back to their end, up to `max_held_bytes`; SSE is held back by at most one
  // line. What exceeds the limit passes as it is.
  UsageRewriter(Kind kind, uint64_t cached_tokens, size_t max_held_bytes = 64 << 20);

  // What may be sent now; the view holds until the next call.
  std::string_view Feed(std::string_view piece);
  // What is left after the last piece.
  std::string End();

 private:
  std::string_view FeedJson(std::string_view piece);
  std::string_view FeedSse(std::string_view piece);
  void EmitLine();

  Kind kind_;
  uint64_t cached_tokens_;
  size_t max_held_bytes_;
  bool passing_ = false;  // the rest of the body, or of the line, is too long to hold
  std::string held_, out_;
};

}  // namespace llmd::pd
