// Errors of the OpenAI-compatible API as vLLM shapes them:
// {"error":{"message","type","param","code"}} with the HTTP status equal to `code`. Plain values,
// no I/O.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "llmd/status.h"

namespace llmd::openai {

struct ApiError {
  int status = 400;
  std::string type = "BadRequestError";
  std::string message;
  std::optional<std::string> param;  // the field to blame, "body.temperature" for schema errors

  friend bool operator==(const ApiError&, const ApiError&) = default;
};

// No value = success.
using MaybeError = std::optional<ApiError>;

// A rule the request breaks: 400 BadRequestError. With a value the message ends in " (parameter=x,
// value=y)".
ApiError BadRequest(std::string message, std::string_view param, std::string_view value = {});
// Valid for vLLM, not built here: 501 NotImplementedError.
ApiError NotImplementedField(std::string_view field);
// 404 naming the model and the names that would work.
ApiError UnknownModel(std::string_view model, std::string_view aliases);
// An engine's or library's Status as an answer: INVALID_ARGUMENT 400, NOT_FOUND 404,
// RESOURCE_EXHAUSTED 429, UNIMPLEMENTED 501, UNAVAILABLE 503, DEADLINE_EXCEEDED 504, the rest 500.
ApiError FromStatus(const Status& status);

// The response body.
std::string ErrorBody(const ApiError& error);

}  // namespace llmd::openai
