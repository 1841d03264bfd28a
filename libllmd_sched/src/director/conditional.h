// Conditional decode: a request that wants to be served from the cache or not at all
// (docs/reference/profile-handlers.md, "Conditional decode").
#pragma once

#include <algorithm>
#include <string_view>

#include "llmd/sched/request_context.h"

namespace llmd::sched {

// True for "Prefer: if-available" (RFC 7240), alone or in a list.
inline bool WantsCached(const RequestContext& request) {
  std::string_view rest = request.Header("prefer");
  while (!rest.empty()) {
    const size_t comma = std::min(rest.find(','), rest.size());
    std::string_view one = rest.substr(0, comma);
    one.remove_prefix(std::min(one.find_first_not_of(" \t"), one.size()));
    one = one.substr(0, one.find_last_not_of(" \t") + 1);
    if (one == "if-available") return true;
    rest.remove_prefix(std::min(comma + 1, rest.size()));
  }
  return false;
}

// True when at least one block of the prompt is cached there.
inline bool HoldsCached(const RequestContext& request, DataKey key, uint32_t endpoint) {
  const Attribute* match = request.Get(key);
  return match != nullptr && endpoint < match->per_endpoint.size() &&
         match->CachedBlocks(endpoint) >= 1;
}

}  // namespace llmd::sched
