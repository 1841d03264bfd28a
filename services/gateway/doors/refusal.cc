#include "gateway/doors/refusal.h"

#include "llmd/http/error_body.h"
#include "llmd/json.h"

namespace llmd::doors {

void Refusal::Clear() {
  status = 0;
  code = param = {};
  message.clear();
  retry_after_s = 0;
}

void Refusal::Set(int http_status, std::string_view error_code, std::string_view text,
                  std::string_view field) {
  status = http_status;
  code = error_code;
  param = field;
  message.assign(text);
}

void AppendErrorBody(const Refusal& refusal, bool anthropic, std::string& out) {
  out += anthropic ? R"({"type":"error","error":{"message":)" : R"({"error":{"message":)";
  json::AppendQuoted(out, refusal.message);
  out += R"(,"type":)";
  json::AppendQuoted(
      out, anthropic ? http::AnthropicErrorType(refusal.status) : http::ErrorType(refusal.status));
  out += R"(,"param":)";
  if (refusal.param.empty())
    out += "null";
  else
    json::AppendQuoted(out, refusal.param);
  out += R"(,"code":)";
  json::AppendQuoted(out, refusal.code);
  out += "}}";
}

void AppendClientText(std::string& out, std::string_view text, size_t most) {
  out += '\'';
  for (const char c : text.substr(0, most)) out += c >= 0x20 && c < 0x7f ? c : '?';
  if (text.size() > most) out += "...";
  out += '\'';
}

}  // namespace llmd::doors
