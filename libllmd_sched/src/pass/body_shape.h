// Which API a body is for, when nobody says.
#pragma once

#include <string_view>

#include "llmd/sched/request_context.h"

namespace llmd::sched {

// The path whose API the members of a parsed JSON body are those of (RequestSpec::path has the
// rule); "" = of none. A literal.
std::string_view PathOfShape(const RequestContext& request);

}  // namespace llmd::sched
