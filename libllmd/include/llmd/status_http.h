// Status to HTTP and back: the one table. Plain functions, thread-safe.
#pragma once

#include <string_view>

#include "llmd/status.h"

namespace llmd {

// 200, 400, 401, 403, 404, 409, 413 (OUT_OF_RANGE: too large), 429, 499 (CANCELLED: the client
// left), 500, 501, 503, 504.
int HttpStatusOf(StatusCode code);
// "invalid_request_error", "rate_limit_error", … as OpenAI's error objects name them.
std::string_view OpenAiErrorType(StatusCode code);
// The code that stands nearest to an HTTP status a peer gave; 2xx is kOk.
StatusCode StatusCodeOfHttp(int http_status);

}  // namespace llmd
