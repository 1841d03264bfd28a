// Where a request says which session it belongs to.
#pragma once

#include <string>
#include <string_view>

#include "llmd/sched/request_context.h"

namespace llmd::sched {

struct SessionSource {
  std::string header, cookie;  // one of them; header in lower case
  // The session's id, or "".
  std::string_view Read(const RequestContext& request) const;
};

std::string Lower(std::string text);
std::string Base64(std::string_view bytes);
// Writes the bytes whose Base64 is exactly `text`; false when there are none. Keeps the memory of
// `bytes`.
bool FromBase64(std::string_view text, std::string& bytes);

}  // namespace llmd::sched
