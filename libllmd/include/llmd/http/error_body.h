// Refusals as clients of the OpenAI API read them: one type a status, whoever answers. Plain
// functions, thread-safe.
#pragma once

#include <string>
#include <string_view>

namespace llmd::http {

// "invalid_request_error", "rate_limit_error", …
std::string_view ErrorType(int status);
// {"error":{"message","type","param":null,"code":status}}.
std::string ErrorBody(int status, std::string_view message);

}  // namespace llmd::http
