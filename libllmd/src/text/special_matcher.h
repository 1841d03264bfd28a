// Finds control and user-defined tokens in text: leftmost, then longest. Immutable once built,
// thread-safe.
#pragma once

#include <bitset>
#include <string_view>
#include <utility>
#include <vector>

#include "llmd/text/tokenizer.h"

namespace llmd::text {

class SpecialMatcher {
 public:
  struct Match {
    size_t position = std::string_view::npos;  // none
    size_t length = 0;
    TokenId id = -1;
  };
  // The texts must outlive this. Empty ones are left out.
  explicit SpecialMatcher(std::vector<std::pair<std::string_view, TokenId>> tokens);
  Match Find(std::string_view text, size_t from) const;

 private:
  Match LongestAt(std::string_view text, size_t position) const;
  std::vector<std::pair<std::string_view, TokenId>> sorted_;
  std::bitset<256> first_bytes_;
};

}  // namespace llmd::text
