#include "llmd/openai/error.h"

#include "llmd/json.h"

namespace llmd::openai {

ApiError BadRequest(std::string message, std::string_view param, std::string_view value) {
  ApiError error;
  error.message = std::move(message);
  if (!param.empty()) error.param = std::string(param);
  if (!value.empty()) {
    error.message.append(" (parameter=").append(param);
    error.message.append(", value=").append(value).append(")");
  }
  return error;
}

ApiError NotImplementedField(std::string_view field) {
  return {501, "NotImplementedError",
          "`" + std::string(field) + "` is not implemented by this server; leave it out.",
          std::string(field)};
}

ApiError UnknownModel(std::string_view model, std::string_view aliases) {
  std::string message = "The model `" + std::string(model) + "` does not exist.";
  if (!aliases.empty()) message += " Valid aliases: " + std::string(aliases) + ".";
  return {404, "NotFoundError", std::move(message), "model"};
}

ApiError FromStatus(const Status& status) {
  switch (status.code()) {
    case StatusCode::kInvalidArgument:
    case StatusCode::kOutOfRange:
    case StatusCode::kFailedPrecondition:
    case StatusCode::kAlreadyExists:  // a request id that is in flight
      return {400, "BadRequestError", status.message(), std::nullopt};
    case StatusCode::kNotFound:
      return {404, "NotFoundError", status.message(), std::nullopt};
    case StatusCode::kResourceExhausted:
      return {429, "TooManyRequestsError", status.message(), std::nullopt};
    case StatusCode::kUnimplemented:
      return {501, "NotImplementedError", status.message(), std::nullopt};
    case StatusCode::kUnavailable:
      return {503, "ServiceUnavailableError", status.message(), std::nullopt};
    case StatusCode::kDeadlineExceeded:
      return {504, "GatewayTimeoutError", status.message(), std::nullopt};
    default:
      return {500, "InternalServerError", status.message(), std::nullopt};
  }
}

std::string ErrorBody(const ApiError& error) {
  std::string out = R"({"error":{"message":)";
  json::AppendQuoted(out, error.message);
  out += R"(,"type":)";
  json::AppendQuoted(out, error.type);
  out += R"(,"param":)";
  if (error.param) {
    json::AppendQuoted(out, *error.param);
  } else {
    out += "null";
  }
  out += R"(,"code":)" + std::to_string(error.status) + "}}";
  return out;
}

}  // namespace llmd::openai
