// Patterns for names: '*' stands for any text, '?' for one byte, everything else for itself.
#pragma once

#include <string_view>

namespace llmd::doors {

// Linear but for patterns with several stars, which take pattern × text at most.
bool GlobMatches(std::string_view pattern, std::string_view text);
// Whether it holds a '*' or a '?'.
inline bool IsGlob(std::string_view pattern) {
  return pattern.find_first_of("*?") != std::string_view::npos;
}

}  // namespace llmd::doors
