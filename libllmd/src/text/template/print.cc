// Values as text: Python's str and repr, and json.dumps.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>

#include "text/case_map.h"
#include "text/template/value.h"
#include "text/unicode.h"
#include "utf8.h"

namespace llmd::text::tmpl {
namespace {

constexpr int kPrintDepth = 200;

void AppendHex(std::string& out, const char* format, uint32_t code) {
  char buffer[16];
  std::snprintf(buffer, sizeof buffer, format, code);
  out += buffer;
}

void AppendReprChar(std::string& out, uint32_t code, char quote) {
  static constexpr std::string_view kFrom = "\n\r\t\\", kTo = "nrt\\";
  if (const size_t i = code < 0x80 ? kFrom.find(static_cast<char>(code)) : kFrom.npos;
      i != kFrom.npos) {
    out += '\\', out += kTo[i];
  } else if (code == static_cast<uint32_t>(quote)) {
    out += '\\', out += quote;
  } else if (IsPrintable(code)) {
    AppendUtf8(out, code);
  } else {
    AppendHex(out, code < 0x100 ? "\\x%02x" : code < 0x10000 ? "\\u%04x" : "\\U%08x", code);
  }
}

void AppendReprString(std::string& out, std::string_view s) {
  const bool has_single = s.find('\'') != s.npos, has_double = s.find('"') != s.npos;
  const char quote = has_single && !has_double ? '"' : '\'';
  out += quote;
  for (const char32_t c : ToCodePoints(s)) AppendReprChar(out, c, quote);
  out += quote;
}

void AppendRepr(std::string& out, const Value& value, int depth);

void AppendReprRange(std::string& out, const List& list) {
  out += "range(" + IntegerText(list.range[0]) + ", " + IntegerText(list.range[1]);
  if (list.range[2] != 1) out += ", " + IntegerText(list.range[2]);
  out += ')';
}

void AppendReprList(std::string& out, const List& list, int depth) {
  static constexpr std::string_view kOpen[] = {
      "[", "(", "(", "", "dict_keys([", "dict_values([", "dict_items(["};
  static constexpr std::string_view kClose[] = {"]", ")", ")", "", "])", "])", "])"};
  if (list.kind == ListKind::kRange) return AppendReprRange(out, list);
  if (list.kind == ListKind::kIterator) {
    out += "<generator object>";
    return;
  }
  const auto kind = static_cast<size_t>(list.kind);
  out += kOpen[kind];
  for (size_t i = 0; i < list.items.size(); ++i) {
    if (i > 0) out += ", ";
    AppendRepr(out, list.items[i], depth + 1);
  }
  if (kOpen[kind] == "(" && list.items.size() == 1) out += ',';
  out += kClose[kind];
}

void AppendReprDict(std::string& out, const Dict& dict, int depth) {
  if (dict.is_namespace) out += "<Namespace ";
  out += '{';
  bool first = true;
  for (const auto& [key, item] : dict.items) {
    if (!first) out += ", ";
    first = false;
    AppendRepr(out, key, depth + 1);
    out += ": ";
    AppendRepr(out, item, depth + 1);
  }
  out += dict.is_namespace ? "}>" : "}";
}

void AppendRepr(std::string& out, const Value& value, int depth) {
  if (depth > kPrintDepth) {
    out += "...";
  } else if (value.is_undefined()) {
    out += "Undefined";
  } else if (value.is_none()) {
    out += "None";
  } else if (value.is_bool()) {
    out += value.integer() != 0 ? "True" : "False";
  } else if (value.is_int()) {
    out += IntegerText(value.integer());
  } else if (value.is_double()) {
    out += FloatText(value.number());
  } else if (value.is_string()) {
    AppendReprString(out, value.str());
  } else if (value.is_list()) {
    AppendReprList(out, value.list_object(), depth);
  } else if (value.is_dict()) {
    AppendReprDict(out, value.dict(), depth);
  } else {
    out += "<function " + value.callable().name + ">";
  }
}

class JsonWriter {
 public:
  JsonWriter(const JsonStyle& style, std::string& bad_type) : style_(style), bad_type_(bad_type) {}
  bool Write(const Value& v, int depth) {
    if (depth > kPrintDepth) return Refuse("too deep a nesting");
    if (v.is_none()) {
      out_ += "null";
    } else if (v.is_bool()) {
      out_ += v.integer() != 0 ? "true" : "false";
    } else if (v.is_int()) {
      out_ += IntegerText(v.integer());
    } else if (v.is_double()) {
      const double d = v.number();
      out_ += std::isnan(d)   ? "NaN"
              : std::isinf(d) ? (d > 0 ? "Infinity" : "-Infinity")
                              : FloatText(d);
    } else if (v.is_string()) {
      WriteString(v.str());
    } else if (v.is_plain_list() || v.is_tuple()) {
      return WriteList(v.list(), depth);
    } else if (v.is_dict() && !v.dict().is_namespace) {
      return WriteDict(v.dict(), depth);
    } else {
      return Refuse(v.TypeName());
    }
    return true;
  }
  std::string Take() { return std::move(out_); }

 private:
  bool Refuse(std::string_view type) {
    bad_type_ = type;
    return false;
  }
  void NewLine(int depth) {
    if (style_.indent < 0) return;
    out_ += '\n';
    for (int i = 0; i < depth; ++i)
      style_.indent_text.empty() ? out_.append(static_cast<size_t>(style_.indent), ' ')
                                 : out_.append(style_.indent_text);
  }
  bool WriteList(const std::vector<Value>& items, int depth) {
    out_ += '[';
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) out_ += style_.item_separator;
      NewLine(depth + 1);
      if (!Write(items[i], depth + 1)) return false;
    }
    if (!items.empty()) NewLine(depth);
    out_ += ']';
    return true;
  }
  bool WriteDict(const Dict& dict, int depth) {
    std::vector<std::pair<std::string, const Value*>> members;
    members.reserve(dict.items.size());
    for (const auto& [key, value] : dict.items) {
      if (key.is_undefined() || key.is_list()) return Refuse(key.TypeName());
      members.emplace_back(KeyText(key), &value);
    }
    if (style_.sort_keys) {
      std::sort(members.begin(), members.end(),
                [](const auto& a, const auto& b) { return a.first < b.first; });
    }
    out_ += '{';
    for (size_t i = 0; i < members.size(); ++i) {
      if (i > 0) out_ += style_.item_separator;
      NewLine(depth + 1);
      WriteString(members[i].first);
      out_ += style_.key_separator;
      if (!Write(*members[i].second, depth + 1)) return false;
    }
    if (!members.empty()) NewLine(depth);
    out_ += '}';
    return true;
  }
  static std::string KeyText(const Value& key) {
    if (key.is_string()) return key.str();
    if (key.is_none()) return "null";
    if (key.is_bool()) return key.integer() != 0 ? "true" : "false";
    return ToText(key);
  }
  void WriteString(std::string_view s) {
    out_ += '"';
    const char* const end = s.data() + s.size();
    for (const char* at = s.data(); at < end;) {
      const Utf8Step step = StepUtf8(at, end);
      if (step.valid && step.length > 1 && style_.ensure_ascii) {
        WriteEscaped(DecodeValid(at).code);
      } else if (step.length > 1) {
        out_.append(at, step.length);
      } else {
        WriteAscii(*at);
      }
      at += step.length;
    }
    out_ += '"';
  }
  void WriteAscii(char c) {
    static constexpr std::string_view kFrom = "\"\\\n\r\t\f\b", kTo = "\"\\nrtfb";
    if (const size_t i = kFrom.find(c); i != kFrom.npos) {
      out_ += '\\', out_ += kTo[i];
    } else if (static_cast<uint8_t>(c) < 0x20) {
      AppendHex(out_, "\\u%04x", static_cast<uint8_t>(c));
    } else {
      out_ += c;
    }
  }
  void WriteEscaped(uint32_t code) {
    if (code < 0x10000) return AppendHex(out_, "\\u%04x", code);
    AppendHex(out_, "\\u%04x", 0xD800 + ((code - 0x10000) >> 10));
    AppendHex(out_, "\\u%04x", 0xDC00 + ((code - 0x10000) & 0x3FF));
  }

  const JsonStyle& style_;
  std::string& bad_type_;
  std::string out_;
};

}  // namespace

// Python's repr: the shortest digits that read back, an exponent below 1e-4 and from 1e16 on.
std::string FloatText(double d) {
  if (std::isnan(d)) return "nan";
  if (std::isinf(d)) return d > 0 ? "inf" : "-inf";
  char buffer[64];
  const auto format = d != 0 && (std::fabs(d) < 1e-4 || std::fabs(d) >= 1e16)
                          ? std::chars_format::scientific
                          : std::chars_format::fixed;
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, d, format).ptr;
  std::string text(buffer, end);
  if (text.find_first_of(".e") == text.npos) text += ".0";
  return text;
}

std::string IntegerText(Integer i, unsigned base) {
  static constexpr std::string_view kDigits = "0123456789abcdef";
  __extension__ typedef unsigned __int128 Unsigned;
  auto left = i < 0 ? -static_cast<Unsigned>(i) : static_cast<Unsigned>(i);
  std::string out;
  do {
    out += kDigits[static_cast<size_t>(left % base)];
    left /= base;
  } while (left != 0);
  if (i < 0) out += '-';
  std::reverse(out.begin(), out.end());
  return out;
}

std::string Repr(const Value& value) {
  std::string out;
  AppendRepr(out, value, 0);
  return out;
}

std::string ToText(const Value& value) {
  if (value.is_string()) return value.str();
  if (value.is_undefined()) return {};
  return Repr(value);
}

std::optional<std::string> ToJson(const Value& value, const JsonStyle& style,
                                  std::string& bad_type) {
  JsonWriter writer(style, bad_type);
  if (!writer.Write(value, 0)) return std::nullopt;
  return writer.Take();
}

}  // namespace llmd::text::tmpl
