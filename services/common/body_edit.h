// Applies the Director's edits to a request body.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "llmd/sched/director.h"

namespace llmd::services {

// `body` with the edits applied, one copy. Edits are sorted and disjoint.
inline std::string ApplyEdits(std::string_view body, const std::vector<sched::BodyEdit>& edits) {
  std::string out;
  size_t size = body.size();
  for (const auto& edit : edits) size += edit.text.size();
  out.reserve(size);
  size_t at = 0;
  for (const auto& edit : edits) {
    out.append(body.substr(at, edit.begin - at)).append(edit.text);
    at = edit.end;
  }
  return out.append(body.substr(at));
}

}  // namespace llmd::services
