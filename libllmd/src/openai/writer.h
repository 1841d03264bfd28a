// Direct JSON text building for replies: values appended with their member names. The caller writes
// the braces.
#pragma once

#include <charconv>
#include <cmath>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "llmd/json.h"
#include "llmd/openai/response.h"

namespace llmd::openai::writer {

inline void Int(std::string& out, int64_t v) {
  char buffer[24];
  out.append(buffer, std::to_chars(buffer, buffer + sizeof(buffer), v).ptr);
}

// A finite number, always with a fraction or exponent, so that clients read a float.
inline void Number(std::string& out, float v) {
  if (!std::isfinite(v)) v = v > 0 ? 9999.0F : -9999.0F;
  char buffer[32];
  const std::string_view text(buffer,
                              std::to_chars(buffer, buffer + sizeof(buffer), v).ptr - buffer);
  out += text;
  if (text.find_first_of(".e") == std::string_view::npos) out += ".0";
}

inline void Text(std::string& out, std::string_view v) {
  json::AppendQuoted(out, v);
}

inline void TextOrNull(std::string& out, std::string_view v) {
  if (v.empty()) {
    out += "null";
  } else {
    Text(out, v);
  }
}

inline void Ids(std::string& out, std::span<const int32_t> ids) {
  out += '[';
  for (size_t i = 0; i < ids.size(); ++i) {
    if (i > 0) out += ',';
    Int(out, ids[i]);
  }
  out += ']';
}

inline void IdsOrNull(std::string& out, const std::optional<TokenIds>& ids) {
  if (ids) {
    Ids(out, *ids);
  } else {
    out += "null";
  }
}

void Stop(std::string& out, const StopReason& reason);
// With nulls for what is unset (whole replies) or only what is set (chunks).
void UsageObject(std::string& out, const Usage& usage, bool with_nulls);
void CompletionLogprobs(std::string& out,
                        const std::optional<std::vector<PositionLogprobs>>& positions,
                        int text_offset);
void ChatLogprobs(std::string& out, const std::optional<std::vector<PositionLogprobs>>& positions);
// vLLM's prompt_logprobs: null for the first position, then {"id":{logprob,rank,decoded_token}}.
void PromptLogprobs(std::string& out,
                    const std::optional<std::vector<PositionLogprobs>>& positions);

}  // namespace llmd::openai::writer
