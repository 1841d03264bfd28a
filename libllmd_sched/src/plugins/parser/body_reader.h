// Reads the members that routing needs out of an OpenAI-like body, in place. Shared by parsers and
// the token producer.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "llmd/sched/request_context.h"
#include "llmd/status.h"

namespace llmd::sched {

// Scans the JSON object at request.body[begin, begin + size) into request.members (places in the
// whole body) and reads model, stream, the token limit and the cache salt. INVALID_ARGUMENT for
// what is not one JSON object or has a model that is no string.
Status ReadBody(RequestContext& request, size_t begin, size_t size);
// The same where the whole body is that object.
inline Status ReadBody(RequestContext& request) {
  return ReadBody(request, 0, request.body.size());
}
// The raw text of a top-level member, or "" when absent. Needs ReadBody.
std::string_view RawMember(const RequestContext& request, std::string_view key);
// The string's value: a view into `quoted` when it has no escapes, else into `buffer`.
std::string_view StringValue(std::string_view quoted, std::string& buffer);
// Numbers and numeric strings; `fallback` for anything else.
int64_t LaxInt(std::string_view raw, int64_t fallback);

}  // namespace llmd::sched
