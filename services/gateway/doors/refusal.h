// An answer by which a door stays closed, and its body in the shape that OpenAI's and Anthropic's
// clients read.
#pragma once

#include <string>
#include <string_view>

namespace llmd::doors {

// `type`, `code` and `param` are texts of ours and live as long as the program.
struct Refusal {
  int status = 0;  // 0 = none
  std::string_view
      code;  // "invalid_api_key", "model_not_found", …; docs/reference/gateway-doors.md
  std::string_view param;  // the field to blame, or ""
  std::string message;     // keeps its memory over Clear
  int retry_after_s = 0;   // 0 = no Retry-After

  explicit operator bool() const { return status != 0; }
  void Clear();
  // Fills all but the message's second part: `message` is `text`, then what the caller appends.
  void Set(int http_status, std::string_view error_code, std::string_view text,
           std::string_view field = {});
};

// Appends {"error":{message,type,param,code}}; for Anthropic's paths with "type":"error" before it,
// so that their clients find theirs.
void AppendErrorBody(const Refusal& refusal, bool anthropic, std::string& out);
// Appends text of a client's, quoted, cut to `most` bytes and with what is no printable ASCII as
// '?', so that it may stand in a message.
void AppendClientText(std::string& out, std::string_view text, size_t most = 128);

}  // namespace llmd::doors
