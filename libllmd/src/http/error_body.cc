#include "llmd/http/error_body.h"

#include "llmd/json.h"

namespace llmd::http {

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
  std::string out = R"({"error":{"message":)";
  json::AppendQuoted(out, message);
  out.append(R"(,"type":")").append(ErrorType(status)).append(R"(","param":null,"code":)");
  return out.append(std::to_string(status)).append("}}");
}

}  // namespace llmd::http
