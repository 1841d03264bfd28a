// The members of a comma-separated header value (RFC 9110 §5.6.1).
#pragma once

#include <string_view>

namespace llmd::http {

inline std::string_view TrimBlanks(std::string_view s) {
  while (!s.empty() && (s.front() == ' ' || s.front() == '\t')) s.remove_prefix(1);
  while (!s.empty() && (s.back() == ' ' || s.back() == '\t')) s.remove_suffix(1);
  return s;
}

// Calls `use` with each member, trimmed; empty ones are passed over.
template <typename Use>
void ForEachListMember(std::string_view value, Use use) {
  for (size_t comma = 0; comma != std::string_view::npos;) {
    comma = value.find(',');
    if (const auto member = TrimBlanks(value.substr(0, comma)); !member.empty()) use(member);
    if (comma != std::string_view::npos) value.remove_prefix(comma + 1);
  }
}

}  // namespace llmd::http
