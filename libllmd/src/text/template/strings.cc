#include "text/template/strings.h"

#include <algorithm>
#include <charconv>

#include "text/case_map.h"
#include "text/unicode.h"
#include "utf8.h"

namespace llmd::text::tmpl {
namespace {

bool IsAscii(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return static_cast<uint8_t>(c) < 0x80; });
}

std::vector<std::string> SplitWhite(std::u32string_view text, int64_t most) {
  std::vector<std::string> parts;
  size_t i = 0;
  const auto skip = [&] {
    while (i < text.size() && IsPythonSpace(text[i])) ++i;
  };
  for (skip(); i < text.size(); skip()) {
    if (most >= 0 && static_cast<int64_t>(parts.size()) == most) {
      parts.push_back(ToUtf8(text.substr(i)));
      break;
    }
    const size_t first = i;
    while (i < text.size() && !IsPythonSpace(text[i])) ++i;
    parts.push_back(ToUtf8(text.substr(first, i - first)));
  }
  return parts;
}

std::vector<std::string> SplitWhiteFromRight(std::u32string_view text, int64_t most) {
  std::vector<std::string> parts;
  size_t end = text.size();
  const auto skip = [&] {
    while (end > 0 && IsPythonSpace(text[end - 1])) --end;
  };
  for (skip(); end > 0; skip()) {
    if (most >= 0 && static_cast<int64_t>(parts.size()) == most) {
      parts.push_back(ToUtf8(text.substr(0, end)));
      break;
    }
    const size_t last = end;
    while (end > 0 && !IsPythonSpace(text[end - 1])) --end;
    parts.push_back(ToUtf8(text.substr(end, last - end)));
  }
  std::reverse(parts.begin(), parts.end());
  return parts;
}

std::vector<std::string> SplitBy(const std::string& text, const std::string& separator,
                                 int64_t most) {
  std::vector<std::string> parts;
  size_t start = 0;
  while (most < 0 || static_cast<int64_t>(parts.size()) < most) {
    const size_t at = text.find(separator, start);
    if (at == text.npos) break;
    parts.push_back(text.substr(start, at - start));
    start = at + separator.size();
  }
  parts.push_back(text.substr(start));
  return parts;
}

std::vector<std::string> SplitByFromRight(const std::string& text, const std::string& separator,
                                          int64_t most) {
  std::vector<std::string> parts;
  size_t end = text.size();
  while (most < 0 || static_cast<int64_t>(parts.size()) < most) {
    const size_t at =
        end < separator.size() ? text.npos : text.rfind(separator, end - separator.size());
    if (at == text.npos) break;
    parts.push_back(text.substr(at + separator.size(), end - at - separator.size()));
    end = at;
  }
  parts.push_back(text.substr(0, end));
  std::reverse(parts.begin(), parts.end());
  return parts;
}

bool EndsLine(char32_t c) {
  return (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 ||
         c == 0x2029;
}

// Digits to ASCII, blanks around and underscores between digits away; nothing for stray
// underscores.
std::optional<std::string> PlainDigits(std::string_view text) {
  std::string out;
  const std::u32string code = ToCodePoints(Strip(text, nullptr, "lr"));
  for (size_t i = 0; i < code.size(); ++i) {
    if (code[i] == '_') {
      const auto digit = [&](size_t at) {
        return at < code.size() &&
               (ClassOf(code[at]) == CharClass::kLetter || DecimalValue(code[at]) >= 0);
      };
      if (i == 0 || !digit(i - 1) || !digit(i + 1)) return std::nullopt;
      continue;
    }
    const int value = DecimalValue(code[i]);
    if (value < 0 && code[i] >= 0x80) return std::nullopt;
    out += value >= 0 ? static_cast<char>('0' + value) : static_cast<char>(code[i]);
  }
  return out;
}

// "0x", "0o", "0b": taken off, and the base it means; `base` stays when there is none.
unsigned TakePrefix(std::string_view& digits, unsigned base) {
  const char letter =
      digits.size() > 2 && digits[0] == '0' ? static_cast<char>(digits[1] | 0x20) : ' ';
  const unsigned meant = letter == 'x' ? 16 : letter == 'o' ? 8 : letter == 'b' ? 2 : 0;
  if (meant == 0 || (base != 0 && base != meant)) return base;
  digits.remove_prefix(2);
  return meant;
}

}  // namespace

bool IsPythonSpace(char32_t code) {
  return ClassOf(code) == CharClass::kSpace || (code >= 0x1C && code <= 0x1F);
}

std::string Strip(std::string_view text, const Value* chars, std::string_view sides) {
  const bool white = chars == nullptr || !chars->is_string();
  const std::u32string set = white ? std::u32string() : ToCodePoints(chars->str());
  const auto goes = [&](std::string_view c) {
    const char32_t code = DecodeValid(c.data()).code;
    return white ? IsPythonSpace(code) : set.find(code) != set.npos;
  };
  const char* begin = text.data();
  const char* end = begin + text.size();
  while (sides[0] == 'l' && begin < end) {
    const size_t n = StepUtf8(begin, end).length;
    if (!goes({begin, n})) break;
    begin += n;
  }
  while (sides.back() == 'r' && begin < end) {
    const char* last = end - 1;
    while (last > begin && (static_cast<uint8_t>(*last) & 0xC0) == 0x80) --last;
    if (!goes({last, static_cast<size_t>(end - last)})) break;
    end = last;
  }
  return std::string(begin, end);
}

std::string Lower(std::string_view text) {
  if (!IsAscii(text)) return ToUtf8(text::Lower(ToCodePoints(text)));
  std::string out(text);
  for (char& c : out) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c;
  return out;
}

std::string Upper(std::string_view text) {
  return ToUtf8(text::Upper(ToCodePoints(text)));
}

std::string Capitalize(std::string_view text) {
  return ToUtf8(text::Capitalize(ToCodePoints(text)));
}

std::string EscapeHtml(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const std::string_view entity = c == '&'    ? "&amp;"
                                    : c == '<'  ? "&lt;"
                                    : c == '>'  ? "&gt;"
                                    : c == '"'  ? "&#34;"
                                    : c == '\'' ? "&#39;"
                                                : "";
    entity.empty() ? out += c : out += entity;
  }
  return out;
}

std::string TitleWords(std::string_view text) {
  const std::u32string code = ToCodePoints(text);
  const auto begins = [](char32_t c) {
    return IsPythonSpace(c) || std::u32string_view(U"-({[<").find(c) != std::u32string_view::npos;
  };
  std::u32string out;
  for (size_t i = 0; i < code.size();) {
    size_t end = i;
    while (end < code.size() && begins(code[end]) == begins(code[i])) ++end;
    const std::u32string_view word = std::u32string_view(code).substr(i, end - i);
    out += text::Upper(word.substr(0, 1)) + text::Lower(word.substr(1));
    i = end;
  }
  return ToUtf8(out);
}

Value Replace(Interpreter& in, const std::string& text, const std::string& from,
              const std::string& to, int64_t count) {
  if (!in.Charge(text.size() / 64 + 1)) return Value();
  std::string out;
  if (from.empty()) {
    const auto chars = Characters(text);
    if (!in.Charge((chars.size() + 1) * (to.size() / 64 + 1))) return Value();
    for (const std::string_view c : chars) {
      if (count != 0) out += to, --count;
      out += c;
    }
    if (count != 0) out += to;
    return Value::Str(std::move(out));
  }
  size_t start = 0;
  for (; count != 0; --count) {
    const size_t at = text.find(from, start);
    if (at == text.npos) break;
    if (!in.Charge(to.size() / 64)) return Value();
    out.append(text, start, at - start).append(to);
    start = at + from.size();
  }
  out.append(text, start);
  return in.Str(std::move(out));
}

Value Split(Interpreter& in, const std::string& text, const Value* separator, int64_t most,
            bool from_right) {
  const bool white = separator == nullptr || separator->is_none();
  if (!white && (!separator->is_string() || separator->str().empty()))
    return in.Fail("split: the separator must be a non-empty string");
  if (!in.Charge(text.size() / 16 + 1)) return Value();
  const auto parts = white
                         ? (from_right ? SplitWhiteFromRight : SplitWhite)(ToCodePoints(text), most)
                         : (from_right ? SplitByFromRight : SplitBy)(text, separator->str(), most);
  if (!in.Charge(parts.size())) return Value();
  std::vector<Value> items;
  items.reserve(parts.size());
  for (const std::string& part : parts) items.push_back(Value::Str(part));
  return Value::MakeList(std::move(items));
}

std::vector<std::string> SplitLines(std::string_view text, bool keep_ends) {
  std::vector<std::string> lines;
  const std::u32string code = ToCodePoints(text);
  const std::u32string_view all = code;
  for (size_t start = 0; start < all.size();) {
    size_t end = start;
    while (end < all.size() && !EndsLine(all[end])) ++end;
    const size_t mark = end == all.size() ? 0 : all.substr(end, 2) == U"\r\n" ? 2 : 1;
    lines.push_back(ToUtf8(all.substr(start, end - start + (keep_ends ? mark : 0))));
    start = end + mark;
  }
  return lines;
}

std::optional<Bounds> ReadBounds(const Value* start, const Value* end, size_t size) {
  const auto length = static_cast<int64_t>(size);
  const auto read = [length](const Value* v, int64_t fallback) -> std::optional<int64_t> {
    if (v == nullptr || v->is_none()) return fallback;
    if (!v->is_integral()) return std::nullopt;
    return v->index() >= 0 ? v->index() : std::max<int64_t>(v->index() + length, 0);
  };
  const auto from = read(start, 0), to = read(end, length);
  if (!from || !to) return std::nullopt;
  return Bounds{*from, std::min(*to, length)};
}

std::optional<Integer> ParseInteger(std::string_view text, unsigned base, bool* too_large) {
  const auto plain = PlainDigits(text);
  if (!plain || plain->empty()) return std::nullopt;
  std::string_view digits = *plain;
  const bool negative = digits[0] == '-';
  if (negative || digits[0] == '+') digits.remove_prefix(1);
  const unsigned used = TakePrefix(digits, base);
  const bool zeros = digits.find_first_not_of('0') == digits.npos;
  if (used == 0 && !zeros && digits.starts_with('0')) return std::nullopt;
  if (digits.empty()) return std::nullopt;
  const Integer radix = used == 0 ? 10 : used;
  Integer value = 0;
  bool over = false;
  for (const char c : digits) {
    const char low = static_cast<char>(c | 0x20);
    const int digit = c >= '0' && c <= '9'       ? c - '0'
                      : low >= 'a' && low <= 'z' ? low - 'a' + 10
                                                 : 99;
    if (digit >= radix) return std::nullopt;
    over = over || __builtin_mul_overflow(value, radix, &value) ||
           __builtin_add_overflow(value, Integer{digit}, &value);
  }
  if (too_large != nullptr) *too_large = over;
  if (over) return std::nullopt;
  return negative ? -value : value;
}

std::optional<double> ParseFloat(std::string_view text) {
  const auto plain = PlainDigits(text);
  if (!plain || plain->empty()) return std::nullopt;
  std::string_view digits = *plain;
  if (digits[0] == '+') digits.remove_prefix(1);
  if (digits.empty() || digits[0] == '+') return std::nullopt;
  double number = 0;
  const char* const end = digits.data() + digits.size();
  const auto read = std::from_chars(digits.data(), end, number);
  if (read.ptr != end || digits.find('(') != digits.npos) return std::nullopt;
  if (read.ec == std::errc()) return number;
  // Out of range: to infinity or zero, as strtod has it.
  return read.ec == std::errc::result_out_of_range
             ? std::optional<double>(std::strtod(std::string(digits).c_str(), nullptr))
             : std::nullopt;
}

}  // namespace llmd::text::tmpl
