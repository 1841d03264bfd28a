// Reading JSON strings that have passed the lexer.
#pragma once

#include <string>
#include <string_view>

namespace llmd::json {

// The first quote or backslash in [at, end), or `end`.
const char* FindQuoteOrSlash(const char* at, const char* end);

// Undoes the escapes between the quotes; `quoted` has passed SkipString. Lone surrogates become
// U+FFFD, as in Go.
std::string DecodeString(std::string_view quoted, bool escaped);

}  // namespace llmd::json
