// Scanning into buffers that are used again, for paths that must not allocate.
#pragma once

#include <functional>
#include <string_view>
#include <vector>

#include "llmd/json.h"

namespace llmd::json {

// ScanObject (json.h) into `members`, whose memory is used again; empty on an error.
Status ScanObjectInto(std::string_view text, ParseLimits limits,
                      std::vector<ScannedMember>& members);

// Calls `each` with the text of each element of a JSON array, in their order, while it is scanned:
// what was called before a mistake in the text stays called. Ends with the first failure of `each`.
Status VisitArray(std::string_view text, ParseLimits limits,
                  const std::function<Status(std::string_view)>& each);

}  // namespace llmd::json
