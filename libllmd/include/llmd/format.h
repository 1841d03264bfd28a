// Numbers and times as text, by the conventions of the formats llmd speaks. All functions append or
// return plain strings, do not depend on the locale, and are thread-safe.
#pragma once

#include <charconv>
#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>

namespace llmd {

// Decimal digits of an integer.
template <std::integral T>
void AppendInteger(std::string& out, T v) {
  char buffer[24];
  const auto [end, ec] = std::to_chars(buffer, buffer + sizeof(buffer), v);
  out.append(buffer, end);
}

// The shortest text that reads back as `v`, as Python's repr prints it: "3.0", "0.1", "1e-05",
// "1e+16"; "inf", "nan".
void AppendPythonFloat(std::string& out, double v);

// RFC 3339 in UTC with seconds: "2025-05-16T16:15:04Z".
std::string FormatRfc3339(int64_t unix_nanos);
// The same with nanoseconds, trailing zeros dropped as Go does: "2025-05-16T16:15:04.98228294Z".
std::string FormatRfc3339Nano(int64_t unix_nanos);

// A duration as Go prints it: "0s", "1.5ms", "2m30s".
std::string FormatGoDuration(int64_t nanos);

// ASCII only.
std::string ToLower(std::string_view text);
bool EqualsIgnoreCase(std::string_view a, std::string_view b);
// Without blanks, tabs, CR and LF at both ends.
std::string_view Trim(std::string_view text);

}  // namespace llmd
