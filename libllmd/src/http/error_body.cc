#include "llmd/http/error_body.h"

#include "llmd/json.h"

namespace llmd::http {
namespace {

std::string ErrorObject(std::string_view begin, std::string_view type, int status,
                        std::string_view message) {
  std::string out(begin);
  json::AppendQuoted(out, message);
  out.append(R"(,"type":")").append(type).append(R"(","param":null,"code":)");
  return out.append(std::to_string(status)).append("}}");
}

}  // namespace

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

std::string ErrorBody(int status, std::string_view message) {
  return ErrorObject(R"({"error":{"message":)", ErrorType(status), status, message);
}

// Those below 500 have the same names.
std::string_view AnthropicErrorType(int status) {
  switch (status) {
    case 503:
      return "overloaded_error";
    case 504:
      return "timeout_error";
    default:
      return status < 500 ? ErrorType(status) : "api_error";
  }
}

std::string AnthropicErrorBody(int status, std::string_view message) {
  return ErrorObject(R"({"type":"error","error":{"message":)", AnthropicErrorType(status), status,
                     message);
}

}  // namespace llmd::http
