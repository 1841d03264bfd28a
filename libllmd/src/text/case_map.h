// Letter case and number kinds as Python's str has them, by code point. Pure functions over
// immutable tables; thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace llmd::text {

enum class Case : uint8_t { kNone = 0, kLower = 1, kUpper = 2, kTitle = 3 };
Case CaseOf(char32_t code);

// str.isdecimal, isdigit and isnumeric, each of which includes the one before.
enum class NumberKind : uint8_t { kNone = 0, kDecimal = 1, kDigit = 2, kNumeric = 3 };
NumberKind NumberKindOf(char32_t code);
// 0 to 9, or -1 for another than a decimal digit.
int DecimalValue(char32_t code);

// str.isprintable: what repr shows as it is.
bool IsPrintable(char32_t code);

// The methods of str with these names; a capital sigma at the end of a word becomes the final one.
std::u32string Lower(std::u32string_view text);
std::u32string Upper(std::u32string_view text);
std::u32string CaseFold(std::u32string_view text);
std::u32string SwapCase(std::u32string_view text);
std::u32string Capitalize(std::u32string_view text);
std::u32string TitleCase(std::u32string_view text);

// Valid UTF-8 to code points and back.
std::u32string ToCodePoints(std::string_view utf8);
std::string ToUtf8(std::u32string_view text);

}  // namespace llmd::text
