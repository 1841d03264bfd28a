#include "gateway/doors/refusal.h"

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

std::string_view ErrorType(int status) {
  switch (status) {
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 404:
      return "not_found_error";
    case 413:
      return "request_too_large";
    case 429:
      return "rate_limit_error";
    case 502:
    case 503:
    case 504:
      return "service_unavailable";
    default:
      return status < 500 ? "invalid_request_error" : "server_error";
  }
}

void AppendErrorBody(const Refusal& refusal, bool anthropic, std::string& out) {
  out += anthropic ? R"({"type":"error","error":{"message":)" : R"({"error":{"message":)";
  json::AppendQuoted(out, refusal.message);
  out += R"(,"type":)";
  json::AppendQuoted(out, ErrorType(refusal.status));
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
