#include "text/template/strings.h"

#include <algorithm>
#include <cstdio>

#include "text/unicode.h"

namespace llmd::text::tmpl {
namespace {

constexpr int kWidestField = 1000;

bool IsPythonSpace(std::string_view c) {
  const uint32_t code = DecodeValid(c.data()).code;
  return ClassOf(code) == CharClass::kSpace || (code >= 0x1C && code <= 0x1F);
}

char LowerByte(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c;
}
char UpperByte(char c) {
  return c >= 'a' && c <= 'z' ? static_cast<char>(c & ~0x20) : c;
}

std::vector<std::string> SplitWhite(std::string_view text, int64_t most) {
  std::vector<std::string> parts;
  const auto chars = Characters(text);
  size_t i = 0;
  const auto skip = [&] {
    while (i < chars.size() && IsPythonSpace(chars[i])) ++i;
  };
  for (skip(); i < chars.size(); skip()) {
    const char* const start = chars[i].data();
    if (most >= 0 && static_cast<int64_t>(parts.size()) == most) {
      parts.emplace_back(start, text.data() + text.size());
      break;
    }
    const size_t first = i;
    while (i < chars.size() && !IsPythonSpace(chars[i])) ++i;
    const char* const end = chars[i - 1].data() + chars[i - 1].size();
    parts.emplace_back(chars[first].data(), end);
  }
  return parts;
}

std::vector<std::string> SplitBy(const std::string& text, const std::string& separator,
                                 int64_t most, bool from_right) {
  std::vector<std::string> parts;
  if (from_right) {
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

bool FormatOne(const std::string& spec, char kind, const Value& v, std::string& out) {
  char buffer[2 * kWidestField];
  int n = -1;
  if (kind == 's' || kind == 'r') {
    const std::string text = kind == 's' ? ToText(v) : Repr(v);
    if (spec == "%") {
      out += text;
      return true;
    }
    n = std::snprintf(buffer, sizeof buffer, (spec + "s").c_str(),
                      text.substr(0, kWidestField).c_str());
  } else if (!v.is_number()) {
    return false;
  } else if (kind == 'd' || kind == 'i' || kind == 'x' || kind == 'X' || kind == 'o') {
    const auto integer =
        v.is_double() ? static_cast<long long>(v.number()) : static_cast<long long>(v.integer());
    n = std::snprintf(buffer, sizeof buffer, (spec + "ll" + kind).c_str(), integer);
  } else {
    n = std::snprintf(buffer, sizeof buffer, (spec + kind).c_str(), v.number());
  }
  if (n < 0 || n >= static_cast<int>(sizeof buffer)) return false;
  out.append(buffer, static_cast<size_t>(n));
  return true;
}

// "%-08.3" up to the conversion letter; false for a width or precision out of bounds.
bool TakeSpec(const std::string& format, size_t& at, std::string& spec) {
  spec = "%";
  while (at < format.size() &&
         std::string_view("-+ 0#").find(format[at]) != std::string_view::npos && spec.size() < 8)
    spec += format[at++];
  for (int part = 0; part < 2; ++part) {
    int number = 0;
    if (part == 1) {
      if (at >= format.size() || format[at] != '.') break;
      spec += format[at++];
    }
    for (; at < format.size() && format[at] >= '0' && format[at] <= '9' && number <= kWidestField;
         ++at) {
      number = number * 10 + (format[at] - '0');
      spec += format[at];
    }
    if (number > kWidestField / 2) return false;
  }
  return at < format.size();
}

}  // namespace

std::string Strip(std::string_view text, const Value* chars, std::string_view sides) {
  const bool white = chars == nullptr || chars->is_none() || !chars->is_string();
  const auto set = white ? std::vector<std::string_view>() : Characters(chars->str());
  const auto goes = [&](std::string_view c) {
    return white ? IsPythonSpace(c) : std::find(set.begin(), set.end(), c) != set.end();
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
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(), LowerByte);
  return out;
}

std::string Upper(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(), UpperByte);
  return out;
}

std::string Capitalize(std::string_view text) {
  std::string out = Lower(text);
  if (!out.empty()) out[0] = UpperByte(out[0]);
  return out;
}

std::string Title(std::string_view text) {
  std::string out = Lower(text);
  bool start = true;
  for (char& c : out) {
    const bool letter = (c >= 'a' && c <= 'z') || static_cast<uint8_t>(c) >= 0x80;
    if (start && letter) c = UpperByte(c);
    start = !letter;
  }
  return out;
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
  if (white && from_right && most >= 0)
    return in.Fail("rsplit by white space takes no maxsplit here");
  const auto parts =
      white ? SplitWhite(text, most) : SplitBy(text, separator->str(), most, from_right);
  if (!in.Charge(parts.size())) return Value();
  std::vector<Value> items;
  items.reserve(parts.size());
  for (const std::string& part : parts) items.push_back(Value::Str(part));
  return Value::MakeList(std::move(items));
}

Value FormatPercent(Interpreter& in, const std::string& format, const Arguments& args) {
  std::string out, spec;
  size_t next = 0;
  for (size_t at = 0; at < format.size();) {
    if (format[at] != '%') {
      out += format[at++];
      continue;
    }
    ++at;
    if (!TakeSpec(format, at, spec)) return in.Fail("format: a bad % specification");
    const char kind = format[at++];
    if (kind == '%') {
      out += '%';
      continue;
    }
    if (std::string_view("srdixXofFeEgG").find(kind) == std::string_view::npos)
      return in.Fail("format: unknown conversion %" + std::string(1, kind));
    if (next >= args.positional.size()) return in.Fail("not enough arguments for format string");
    const Value& v = args.positional[next++];
    if (!FormatOne(spec, kind, v, out))
      return in.Fail("format: %" + std::string(1, kind) + " does not take '" +
                     std::string(v.TypeName()) + "'");
    if (!in.Charge(out.size() / 1024)) return Value();
  }
  if (next < args.positional.size())
    return in.Fail("not all arguments converted during string formatting");
  return in.Str(std::move(out));
}

Value FormatBraces(Interpreter& in, const std::string& format, const Arguments& args) {
  std::string out;
  size_t next = 0;
  for (size_t at = 0; at < format.size(); ++at) {
    const char c = format[at];
    if ((c == '{' || c == '}') && at + 1 < format.size() && format[at + 1] == c) {
      out += c, ++at;
      continue;
    }
    if (c != '{') {
      out += c;
      continue;
    }
    const size_t end = format.find('}', at);
    if (end == format.npos) return in.Fail("format: a '{' without '}'");
    const std::string field = format.substr(at + 1, end - at - 1);
    const bool numbered =
        !field.empty() && field.size() < 4 && field.find_first_not_of("0123456789") == field.npos;
    const size_t index = field.empty() ? next++
                         : numbered    ? static_cast<size_t>(std::stoi(field))
                                       : SIZE_MAX;
    const Value* value = args.Get(index, field);
    if (value == nullptr) return in.Fail("format: no argument for '{" + field + "}'");
    out += ToText(*value);
    if (!in.Charge(out.size() / 1024)) return Value();
    at = end;
  }
  return in.Str(std::move(out));
}

}  // namespace llmd::text::tmpl
