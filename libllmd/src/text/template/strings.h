// String work that filters and methods share: Python's rules, counted in code points. Thread-safe.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/template/interpreter.h"

namespace llmd::text::tmpl {

// What str.isspace says.
bool IsPythonSpace(char32_t code);

// Sides are any of "l", "r", "lr"; white space goes when `chars` is null or none.
std::string Strip(std::string_view text, const Value* chars, std::string_view sides);
std::string Lower(std::string_view text);
std::string Upper(std::string_view text);
std::string Capitalize(std::string_view text);
// Without the characters that HTML reads.
std::string EscapeHtml(std::string_view text);
// Jinja's filter: words also begin behind brackets and hyphens, unlike str.title.
std::string TitleWords(std::string_view text);
// At most `count` replacements, all when negative. Charges the interpreter for the result before
// making it.
Value Replace(Interpreter& in, const std::string& text, const std::string& from,
              const std::string& to, int64_t count);
// str.split: by white space when `separator` is null or none.
Value Split(Interpreter& in, const std::string& text, const Value* separator, int64_t most,
            bool from_right);
// At every line boundary that Python knows.
std::vector<std::string> SplitLines(std::string_view text, bool keep_ends);

// The part of `size` code points that [start, end) means, as str.find and its kin read it; absent
// and none are the ends. Nothing when a bound is no integer.
struct Bounds {
  int64_t start, end;
};
std::optional<Bounds> ReadBounds(const Value* start, const Value* end, size_t size);

// int(text, base) for base 0 and 2 to 36 and float(text); nothing for what they refuse. Nothing and
// `too_large` for an integer beyond 127 bits.
std::optional<Integer> ParseInteger(std::string_view text, unsigned base,
                                    bool* too_large = nullptr);
std::optional<double> ParseFloat(std::string_view text);

// The operator %: a tuple is its arguments, a dict those of %(name)s.
Value FormatPercent(Interpreter& in, const std::string& format, const Value& args);
// str.format with {}, {0}, {name.attribute[key]!r:spec}.
Value FormatBraces(Interpreter& in, const std::string& format, const Arguments& args);

}  // namespace llmd::text::tmpl
