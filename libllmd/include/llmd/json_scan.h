// Scanning into buffers that are used again, for paths that must not allocate.
#pragma once

#include <string_view>
#include <vector>

#include "llmd/json.h"

namespace llmd::json {

// ScanObject (json.h) into `members`, whose memory is used again; empty on an error.
Status ScanObjectInto(std::string_view text, ParseLimits limits,
                      std::vector<ScannedMember>& members);

}  // namespace llmd::json
