#include "text/special_matcher.h"

#include <algorithm>
#include <cstdint>

namespace llmd::text {

SpecialMatcher::SpecialMatcher(std::vector<std::pair<std::string_view, TokenId>> tokens)
    : sorted_(std::move(tokens)) {
  std::erase_if(sorted_, [](const auto& token) { return token.first.empty(); });
  std::sort(sorted_.begin(), sorted_.end());
  for (const auto& [text, id] : sorted_) first_bytes_.set(static_cast<uint8_t>(text[0]));
}

SpecialMatcher::Match SpecialMatcher::Find(std::string_view text, size_t from) const {
  if (sorted_.empty()) return {};
  for (size_t at = from; at < text.size(); ++at) {
    if (!first_bytes_[static_cast<uint8_t>(text[at])]) continue;
    if (const Match match = LongestAt(text, at); match.id >= 0) return match;
  }
  return {};
}

// Narrows the sorted range byte by byte, so that the cost is the match's length, not the number of
// tokens.
SpecialMatcher::Match SpecialMatcher::LongestAt(std::string_view text, size_t position) const {
  Match best;
  auto low = sorted_.begin(), high = sorted_.end();
  for (size_t depth = 0; low != high; ++depth) {
    if (low->first.size() == depth) {
      best = {position, depth, low->second};
      ++low;
    }
    if (position + depth >= text.size()) break;
    const auto want = static_cast<uint8_t>(text[position + depth]);
    const auto byte = [depth](const auto& token) {
      return static_cast<uint8_t>(token.first[depth]);
    };
    low = std::partition_point(low, high, [&](const auto& t) { return byte(t) < want; });
    high = std::partition_point(low, high, [&](const auto& t) { return byte(t) == want; });
  }
  return best;
}

}  // namespace llmd::text
