// Python's two ways to format: the operator % and str.format with its format specifications.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "text/case_map.h"
#include "text/template/strings.h"
#include "utf8.h"

namespace llmd::text::tmpl {
namespace {

constexpr int kWidestField = 1000;

// One conversion, whichever way it was written.
struct Spec {
  std::string fill = " ";
  char align = 0;  // '<', '>', '^', '=' or none
  char sign = '-';
  bool alternate = false;
  int width = 0;
  char group = 0;  // ',' or '_'
  int precision = -1;
  char type = 0;
};

std::string Padded(std::string text, const Spec& spec, char align, size_t behind_sign = 0) {
  const size_t length = Length(text), width = static_cast<size_t>(spec.width);
  if (length >= width) return text;
  const size_t missing = width - length;
  const size_t before = align == '<'   ? 0
                        : align == '^' ? missing / 2
                        : align == '=' ? missing
                                       : missing;
  std::string left, right;
  for (size_t i = 0; i < missing; ++i) (i < before ? left : right) += spec.fill;
  if (align == '=') return text.insert(behind_sign, left);
  return left + text + right;
}

std::string SignOf(bool negative, const Spec& spec) {
  return negative ? "-" : spec.sign == '-' ? "" : std::string(1, spec.sign);
}

// "1234567" → "1,234,567" from the right, up to the first character that is no digit.
void Group(std::string& digits, char mark) {
  size_t end = digits.find_first_not_of("0123456789");
  end = std::min(end, digits.size());
  for (size_t at = end; at > 3; at -= 3) digits.insert(at - 3, 1, mark);
}

std::string FormatInteger(Integer value, const Spec& spec, int least_digits) {
  const unsigned base = spec.type == 'x' || spec.type == 'X' ? 16
                        : spec.type == 'o'                   ? 8
                        : spec.type == 'b'                   ? 2
                                                             : 10;
  std::string digits = IntegerText(value, base);
  if (value < 0) digits.erase(0, 1);
  if (static_cast<int>(digits.size()) < least_digits)
    digits.insert(0, static_cast<size_t>(least_digits) - digits.size(), '0');
  if (spec.group != 0) Group(digits, spec.group);
  std::string head = SignOf(value < 0, spec);
  if (spec.alternate && base != 10) head += std::string("0") + spec.type;
  if (spec.type == 'X') {
    for (char& c : digits) c = c >= 'a' && c <= 'f' ? static_cast<char>(c & ~0x20) : c;
  }
  return Padded(head + digits, spec, spec.align == 0 ? '>' : spec.align, head.size());
}

std::string FloatDigits(double value, const Spec& spec) {
  const char type = spec.type == 0 || spec.type == '%' ? (spec.type == 0 ? 'g' : 'f') : spec.type;
  const int precision = spec.precision < 0 ? 6 : spec.precision;
  const std::string format = std::string("%") + (spec.alternate ? "#" : "") + ".*" + type;
  const double shown = std::fabs(spec.type == '%' ? value * 100 : value);
  std::string out(static_cast<size_t>(precision) + 400, '\0');
  out.resize(
      static_cast<size_t>(std::snprintf(out.data(), out.size(), format.c_str(), precision, shown)));
  return spec.type == '%' ? out + '%' : out;
}

std::string FormatFloat(double value, const Spec& spec) {
  std::string digits =
      spec.type == 0 && spec.precision < 0 ? FloatText(std::fabs(value)) : FloatDigits(value, spec);
  // Without a type it stays a float to the eye.
  if (spec.type == 0 && spec.precision >= 0 && digits.find_first_of(".en") == digits.npos)
    digits += ".0";
  if (spec.group != 0) Group(digits, spec.group);
  const std::string head = SignOf(std::signbit(value), spec);
  Spec padded = spec;
  if (!std::isfinite(value) && spec.align == '=' && spec.fill == "0") padded.fill = "0";
  return Padded(head + digits, padded, spec.align == 0 ? '>' : spec.align, head.size());
}

std::string Cut(const std::string& text, int precision) {
  if (precision < 0) return text;
  return ToUtf8(ToCodePoints(text).substr(0, static_cast<size_t>(precision)));
}

bool IsFloatType(char type) {
  return type != 0 && std::string_view("eEfFgG%").find(type) != std::string_view::npos;
}

// The conversions of %: true when `kind` takes the value.
bool PercentOne(char kind, Spec spec, const Value& v, std::string& out) {
  if (kind == 's' || kind == 'r' || kind == 'a') {
    const std::string text = kind == 's' ? ToText(v) : Repr(v);
    out += Padded(Cut(text, spec.precision), spec, spec.align == '<' ? '<' : '>');
    return true;
  }
  if (kind == 'c') {
    const bool one = v.is_string() && Length(v.str()) == 1;
    const bool code = v.is_integral() && v.index() >= 0 && v.index() < 0x110000 &&
                      (v.index() < 0xD800 || v.index() > 0xDFFF);
    if (!one && !code) return false;
    std::string text = one ? v.str() : "";
    if (code) AppendUtf8(text, static_cast<uint32_t>(v.index()));
    out += Padded(std::move(text), spec, spec.align == '<' ? '<' : '>');
    return true;
  }
  if (!v.is_number()) return false;
  if (IsFloatType(kind)) {
    spec.type = kind;
    out += FormatFloat(v.number(), spec);
    return true;
  }
  const bool decimal = kind == 'd' || kind == 'i' || kind == 'u';
  if (v.is_double() && (!decimal || !(std::fabs(v.number()) < 0x1p126))) return false;
  spec.type = decimal ? 'd' : kind;
  const Integer value = v.is_double() ? static_cast<Integer>(v.number()) : v.integer();
  out += FormatInteger(value, spec, spec.precision);
  return true;
}

// Walks the text of a format.
struct Cursor {
  const std::string& text;
  size_t at = 0;
  bool end() const { return at >= text.size(); }
  char peek() const { return end() ? '\0' : text[at]; }
  bool Take(char c) { return peek() == c && ++at > 0; }
  // A number, or -1 when it is out of bounds; 0 when there is none.
  int Number() {
    int number = 0;
    for (; peek() >= '0' && peek() <= '9'; ++at) {
      number = number * 10 + (peek() - '0');
      if (number > kWidestField) return -1;
    }
    return number;
  }
};

// "-08.3" up to the conversion letter; false for what is out of bounds.
bool TakePercentSpec(Cursor& in, Spec& spec) {
  bool zero = false;
  for (; std::string_view("-+ 0#").find(in.peek()) != std::string_view::npos && !in.end();
       ++in.at) {
    const char c = in.peek();
    if (c == '-') spec.align = '<';
    if (c == '+' || (c == ' ' && spec.sign != '+')) spec.sign = c;
    if (c == '0') zero = true;
    if (c == '#') spec.alternate = true;
  }
  spec.width = in.Number();
  if (in.Take('.')) spec.precision = in.Number();
  if (spec.width < 0 || spec.precision < -1) return false;
  if (zero && spec.align == 0) spec.align = '=', spec.fill = "0";
  while (in.peek() == 'l' || in.peek() == 'h' || in.peek() == 'L') ++in.at;
  return !in.end();
}

// "[[fill]align][sign][#][0][width][,][.precision][type]"; false for another text.
bool ReadFormatSpec(const std::string& text, Spec& spec) {
  const auto aligns = [](char c) {
    return c != 0 && std::string_view("<>=^").find(c) != std::string_view::npos;
  };
  const auto chars = Characters(text);
  Cursor in{text};
  if (chars.size() >= 2 && chars[1].size() == 1 && aligns(chars[1][0])) {
    spec.fill = chars[0];
    spec.align = chars[1][0];
    in.at = chars[0].size() + 1;
  } else if (aligns(in.peek())) {
    spec.align = in.text[in.at++];
  }
  if (in.peek() == '+' || in.peek() == '-' || in.peek() == ' ') spec.sign = in.text[in.at++];
  spec.alternate = in.Take('#');
  if (in.Take('0') && spec.align == 0) spec.fill = "0", spec.align = '=';
  spec.width = in.Number();
  if (in.peek() == ',' || in.peek() == '_') spec.group = in.text[in.at++];
  if (in.Take('.')) {
    if (in.peek() < '0' || in.peek() > '9') return false;
    spec.precision = in.Number();
    if (spec.precision < 0) return false;
  }
  if (!in.end()) spec.type = in.text[in.at++];
  return in.end() && spec.width >= 0;
}

// format(value, spec); false when the value does not take it.
bool FormatValue(const Value& v, const std::string& text, std::string& out) {
  Spec spec;
  if (!ReadFormatSpec(text, spec)) return false;
  if (v.is_bool() && text.empty()) {
    out += ToText(v);
  } else if (v.is_integral() && !IsFloatType(spec.type)) {
    if (spec.type != 0 && std::string_view("dxXobn").find(spec.type) == std::string_view::npos)
      return false;
    if (spec.precision >= 0) return false;
    out += FormatInteger(v.integer(), spec, 0);
  } else if (v.is_number()) {
    if (spec.type != 0 && !IsFloatType(spec.type)) return false;
    out += FormatFloat(v.number(), spec);
  } else if (v.is_string()) {
    const bool fits = (spec.type == 0 || spec.type == 's') && spec.group == 0 && spec.sign == '-';
    if (!fits || (spec.align == '=' && spec.fill != "0")) return false;
    const char align = spec.align == 0 || spec.align == '=' ? '<' : spec.align;
    out += Padded(Cut(v.str(), spec.precision), spec, align);
  } else {
    if (!text.empty()) return false;
    out += ToText(v);
  }
  return true;
}

bool AllDigits(std::string_view text) {
  return !text.empty() && text.size() < 5 && text.find_first_not_of("0123456789") == text.npos;
}

// ".name" and "[key]" behind a field's first part.
Value FollowPath(Interpreter& in, Value value, std::string_view path) {
  while (!path.empty() && !in.failed()) {
    const bool item = path[0] == '[';
    const size_t end = item ? path.find(']') : path.find_first_of(".[", 1);
    if ((!item && path[0] != '.') || (item && end == path.npos))
      return in.Fail("format: a field that is no name, attribute or item");
    const std::string key(path.substr(1, std::min(end, path.size()) - 1));
    if (key.empty()) return in.Fail("format: an empty attribute");
    if (!item) {
      value = in.GetAttribute(value, key);
    } else {
      value =
          in.GetItem(value, AllDigits(key) ? Value::Int(std::atoi(key.c_str())) : Value::Str(key));
    }
    path.remove_prefix(item ? end + 1 : std::min(end, path.size()));
  }
  return value;
}

// One replacement field, without its braces.
void AppendField(Interpreter& in, std::string_view field, const Arguments& args, size_t& next,
                 std::string& out) {
  const size_t colon = std::min(field.find(':'), field.size());
  const std::string spec(field.substr(std::min(colon + 1, field.size())));
  std::string_view name = field.substr(0, colon);
  char conversion = 0;
  if (const size_t mark = name.find('!'); mark != name.npos) {
    if (mark + 2 == name.size()) conversion = name[mark + 1];
    name = name.substr(0, mark);
    if (conversion != 's' && conversion != 'r' && conversion != 'a') {
      in.Fail("format: a bad conversion");
      return;
    }
  }
  const std::string_view first = name.substr(0, name.find_first_of(".["));
  const size_t index = first.empty() ? next++
                       : AllDigits(first)
                           ? static_cast<size_t>(std::atoi(std::string(first).c_str()))
                           : SIZE_MAX;
  const Value* found = args.Get(index, first);
  if (found == nullptr || (index == SIZE_MAX && first.empty())) {
    in.Fail("format: no argument for '{" + std::string(field) + "}'");
    return;
  }
  Value value = FollowPath(in, *found, name.substr(first.size()));
  if (in.failed()) return;
  if (conversion != 0) value = Value::Str(conversion == 's' ? ToText(value) : Repr(value));
  if (!FormatValue(value, spec, out))
    in.Fail("format: '" + spec + "' does not fit '" + std::string(value.TypeName()) + "'");
}

}  // namespace

Value FormatPercent(Interpreter& in, const std::string& format, const Value& args) {
  const std::vector<Value> values = args.is_tuple() ? args.list() : std::vector<Value>{args};
  std::string out;
  size_t next = 0;
  bool named = false;
  for (Cursor at{format}; !at.end();) {
    if (!at.Take('%')) {
      out += format[at.at++];
      continue;
    }
    const Value* value = nullptr;
    if (at.Take('(')) {
      const size_t end = format.find(')', at.at);
      if (end == format.npos || !args.is_mapping()) return in.Fail("format requires a mapping");
      value = args.dict().Find(std::string_view(format).substr(at.at, end - at.at));
      if (value == nullptr) return in.Fail("format: no such key");
      at.at = end + 1;
      named = true;
    }
    Spec spec;
    if (!TakePercentSpec(at, spec)) return in.Fail("format: a bad % specification");
    const char kind = format[at.at++];
    if (kind == '%') {
      out += '%';
      continue;
    }
    if (std::string_view("sracdiuxXofFeEgG").find(kind) == std::string_view::npos)
      return in.Fail("format: unknown conversion %" + std::string(1, kind));
    if (value == nullptr) {
      if (next >= values.size()) return in.Fail("not enough arguments for format string");
      value = &values[next++];
    }
    if (!PercentOne(kind, spec, *value, out))
      return in.Fail("format: %" + std::string(1, kind) + " does not take '" +
                     std::string(value->TypeName()) + "'");
    if (!in.Charge(out.size() / 1024)) return Value();
  }
  // Python lets a list or dict that is the one argument go unused.
  if (next < values.size() && !named &&
      (args.is_tuple() || !(args.is_mapping() || args.is_plain_list())))
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
    if (c == '}') return in.Fail("Single '}' encountered in format string");
    if (c != '{') {
      out += c;
      continue;
    }
    const size_t end = format.find('}', at);
    if (end == format.npos) return in.Fail("Single '{' encountered in format string");
    AppendField(in, std::string_view(format).substr(at + 1, end - at - 1), args, next, out);
    if (in.failed() || !in.Charge(out.size() / 1024)) return Value();
    at = end;
  }
  return in.Str(std::move(out));
}

}  // namespace llmd::text::tmpl
