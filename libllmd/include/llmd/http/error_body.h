// Refusals as clients of the OpenAI API read them, and those of Anthropic's: one type a status,
// whoever answers. Plain functions, thread-safe.
#pragma once

#include <string>
#include <string_view>

namespace llmd::http {

// "invalid_request_error", "rate_limit_error", …
std::string_view ErrorType(int status);
// {"error":{"message","type","param":null,"code":status}}.
std::string ErrorBody(int status, std::string_view message);

// "invalid_request_error", "overloaded_error", … (docs.anthropic.com, Errors)
std::string_view AnthropicErrorType(int status);
// {"type":"error","error":{"message","type","param":null,"code":status}}: theirs, and what clients of
// either find the same way.
std::string AnthropicErrorBody(int status, std::string_view message);

}  // namespace llmd::http
