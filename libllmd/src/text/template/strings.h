// String work that filters and methods share. Thread-safe.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "text/template/interpreter.h"

namespace llmd::text::tmpl {

// Sides are any of "l", "r", "lr"; without `chars` white space goes. ASCII white space and
// Unicode's.
std::string Strip(std::string_view text, const Value* chars, std::string_view sides);
// ASCII letters only.
std::string Lower(std::string_view text);
std::string Upper(std::string_view text);
std::string Capitalize(std::string_view text);
std::string Title(std::string_view text);
// At most `count` replacements, all when negative. Charges the interpreter for the result before
// making it.
Value Replace(Interpreter& in, const std::string& text, const std::string& from,
              const std::string& to, int64_t count);
// str.split: by white space when `separator` is null or none.
Value Split(Interpreter& in, const std::string& text, const Value* separator, int64_t most,
            bool from_right);
// printf-style formatting with %s, %r, %d, %i, %x, %f, %g, %e and %%, flags, width and precision.
Value FormatPercent(Interpreter& in, const std::string& format, const Arguments& args);
// str.format with {}, {0}, {name}.
Value FormatBraces(Interpreter& in, const std::string& format, const Arguments& args);

}  // namespace llmd::text::tmpl
