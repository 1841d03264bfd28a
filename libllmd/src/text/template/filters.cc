// Filters of texts, numbers and JSON; those of sequences are in filters_seq.cc.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>

#include "text/case_map.h"
#include "text/template/strings.h"
#include "text/unicode.h"

namespace llmd::text::tmpl {
namespace {

bool Truth(const Arguments& a, size_t i, std::string_view name, bool fallback = false) {
  const Value* v = a.Get(i, name);
  return v != nullptr ? v->Truthy() : fallback;
}
int64_t IntOr(const Arguments& a, size_t i, std::string_view name, int64_t fallback) {
  const Value* v = a.Get(i, name);
  return v != nullptr && v->is_integral() ? v->index() : fallback;
}
std::string TextOr(const Arguments& a, size_t i, std::string_view name, std::string fallback) {
  const Value* v = a.Get(i, name);
  return v != nullptr ? ToText(*v) : std::move(fallback);
}

Value ToJsonFilter(Interpreter& in, const Value& v, const Arguments& a) {
  JsonStyle style;
  style.ensure_ascii = Truth(a, 0, "ensure_ascii");
  if (const Value* indent = a.Get(1, "indent");
      indent != nullptr && (indent->is_integral() || indent->is_string())) {
    style.indent =
        indent->is_string() ? 0 : static_cast<int>(std::clamp<int64_t>(indent->index(), 0, 64));
    if (indent->is_string()) style.indent_text = indent->str();
    style.item_separator = ",";
  }
  if (const Value* separators = a.Get(2, "separators");
      separators != nullptr && separators->is_list() && separators->list().size() == 2) {
    style.item_separator = ToText(separators->list()[0]);
    style.key_separator = ToText(separators->list()[1]);
  }
  style.sort_keys = Truth(a, 3, "sort_keys");
  std::string bad_type;
  auto text = ToJson(v, style, bad_type);
  return text ? in.Str(std::move(*text))
              : in.Fail("Object of type " + bad_type + " is not JSON serializable");
}

Value LengthFilter(Interpreter& in, const Value& v, const Arguments&) {
  if (v.is_undefined()) return Value::Int(0);
  if (v.is_string()) return in.Charge(v.str().size() / 64) ? Value::Size(Length(v.str())) : Value();
  if (v.is_list() && !v.is_iterator()) return Value::Size(v.list().size());
  if (v.is_mapping()) return Value::Size(v.dict().items.size());
  return in.Fail("object of type '" + std::string(v.TypeName()) + "' has no len()");
}
Value Trim(Interpreter& in, const Value& v, const Arguments& a) {
  const Value* chars = a.Get(0, "chars");
  if (chars != nullptr && !chars->is_none() && !chars->is_string())
    return in.Fail("strip arg must be none or str");
  return in.Str(Strip(ToText(v), chars, "lr"));
}
Value StringFilter(Interpreter& in, const Value& v, const Arguments&) {
  return v.is_string() ? v : in.Str(ToText(v));
}
template <std::string (*kMap)(std::string_view)>
Value Mapped(Interpreter& in, const Value& v, const Arguments&) {
  return in.Str(kMap(ToText(v)));
}
Value DefaultFilter(Interpreter&, const Value& v, const Arguments& a) {
  const bool missing = v.is_undefined() || (Truth(a, 1, "boolean") && !v.Truthy());
  if (!missing) return v;
  const Value* fallback = a.Get(0, "default_value");
  return fallback != nullptr ? *fallback : Value::Str("");
}
Value ReplaceFilter(Interpreter& in, const Value& v, const Arguments& a) {
  const Value *from = a.Get(0, "old"), *to = a.Get(1, "new"), *count = a.Get(2, "count");
  if (from == nullptr || to == nullptr) return in.Fail("replace needs what and what by");
  if (count != nullptr && !count->is_none() && !count->is_integral())
    return in.Fail("replace: count is no integer");
  return Replace(in, ToText(v), ToText(*from), ToText(*to), IntOr(a, 2, "count", -1));
}

Value Indent(Interpreter& in, const Value& v, const Arguments& a) {
  if (!v.is_string())
    return in.Fail("indent needs a text, not '" + std::string(v.TypeName()) + "'");
  const Value* width = a.Get(0, "width");
  const int64_t count = std::clamp<int64_t>(IntOr(a, 0, "width", 4), 0, 1000);
  const std::string pad = width != nullptr && width->is_string()
                              ? width->str()
                              : std::string(static_cast<size_t>(count), ' ');
  const bool blank = Truth(a, 2, "blank");
  // A line of its own behind the last one keeps a line break at the end.
  const std::vector<std::string> lines = SplitLines(ToText(v) + "\n", false);
  std::string out = Truth(a, 1, "first") ? pad : "";
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) out += '\n';
    if (i > 0 && (blank || !lines[i].empty())) out += pad;
    out += lines[i];
    if (!in.Charge((pad.size() + lines[i].size()) / 64 + 1)) return Value();
  }
  return in.Str(std::move(out));
}

Value Center(Interpreter& in, const Value& v, const Arguments& a) {
  Arguments width;
  width.positional.push_back(Value::Int(IntOr(a, 0, "width", 80)));
  return FindMethod(Value::Str(""), "center")(in, Value::Str(ToText(v)), width);
}

Value Truncate(Interpreter& in, const Value& v, const Arguments& a) {
  if (!v.is_string()) {
    const Value size = LengthFilter(in, v, {});
    const bool fits =
        !in.failed() && size.index() <= IntOr(a, 0, "length", 255) + IntOr(a, 3, "leeway", 5);
    return fits ? v : in.Fail("truncate needs a text");
  }
  const std::u32string text = ToCodePoints(ToText(v)),
                       end = ToCodePoints(TextOr(a, 2, "end", "..."));
  const int64_t length = IntOr(a, 0, "length", 255), leeway = IntOr(a, 3, "leeway", 5);
  const auto size = static_cast<int64_t>(text.size()), mark = static_cast<int64_t>(end.size());
  if (length < mark) return in.Fail("truncate: the length is less than that of the end");
  if (leeway < 0) return in.Fail("truncate: leeway is negative");
  if (size <= length || size - length <= leeway) return in.Str(ToUtf8(text));
  std::u32string cut = text.substr(0, static_cast<size_t>(length - mark));
  if (!Truth(a, 1, "killwords")) cut = cut.substr(0, cut.rfind(U' '));
  return in.Str(ToUtf8(cut + end));
}

Value WordCount(Interpreter&, const Value& v, const Arguments&) {
  Integer words = 0;
  bool inside = false;
  for (const char32_t c : ToCodePoints(ToText(v))) {
    const bool part =
        c == '_' || ClassOf(c) == CharClass::kLetter || NumberKindOf(c) != NumberKind::kNone;
    if (part && !inside) ++words;
    inside = part;
  }
  return Value::Int(words);
}

Value WholeOf(Interpreter& in, double number) {
  if (!(std::fabs(number) < 0x1p126))
    return in.Fail("int: " + FloatText(number) + " is out of range");
  return Value::Int(static_cast<Integer>(number));
}
Value IntFilter(Interpreter& in, const Value& v, const Arguments& a) {
  if (v.is_undefined()) return in.Fail(v.undefined().what);
  if (v.is_integral()) return Value::Int(v.integer());
  const Value* given = a.Get(0, "default");
  const Value fallback = given != nullptr ? *given : Value::Int(0);
  if (v.is_double()) return std::isnan(v.number()) ? fallback : WholeOf(in, v.number());
  if (!v.is_string()) return fallback;
  const int64_t base = IntOr(a, 1, "base", 10);
  if (base != 0 && (base < 2 || base > 36)) return fallback;
  bool too_large = false;
  if (const auto whole = ParseInteger(v.str(), static_cast<unsigned>(base), &too_large))
    return Value::Int(*whole);
  if (too_large) return in.Fail("int: out of range");
  const auto number = ParseFloat(v.str());
  return number && std::isfinite(*number) ? WholeOf(in, *number) : fallback;
}
Value FloatFilter(Interpreter& in, const Value& v, const Arguments& a) {
  if (v.is_undefined()) return in.Fail(v.undefined().what);
  if (v.is_number()) return Value(v.number());
  if (const auto number = v.is_string() ? ParseFloat(v.str()) : std::nullopt) return Value(*number);
  const Value* fallback = a.Get(0, "default");
  return fallback != nullptr ? *fallback : Value(0.0);
}
Value Abs(Interpreter& in, const Value& v, const Arguments&) {
  if (!v.is_number()) return in.Fail("abs needs a number");
  if (v.is_double()) return Value(std::fabs(v.number()));
  return Value::Int(v.integer() < 0 ? -v.integer() : v.integer());
}

// round(number, digits): the decimal nearest to the binary number itself, halves to even.
double RoundedTo(double number, int64_t digits) {
  if (!std::isfinite(number) || digits > 300) return number;
  if (digits >= 0) {
    std::string text(static_cast<size_t>(digits) + 400, '\0');
    std::snprintf(text.data(), text.size(), "%.*f", static_cast<int>(digits), number);
    return std::strtod(text.c_str(), nullptr);
  }
  if (digits < -308) return std::copysign(0.0, number);
  const double scale = std::pow(10.0, static_cast<double>(-digits));
  return std::nearbyint(number / scale) * scale;
}
Integer RoundedTo(Integer number, int64_t digits) {
  if (digits >= 0) return number;
  if (digits < -38) return 0;
  Integer scale = 1;
  for (int64_t i = digits; i < 0; ++i) scale *= 10;
  const Integer rest = ((number % scale) + scale) % scale, down = number - rest;
  const bool odd = (down / scale) % 2 != 0;
  return rest * 2 > scale || (rest * 2 == scale && odd) ? down + scale : down;
}
Value Round(Interpreter& in, const Value& v, const Arguments& a) {
  const std::string method = TextOr(a, 1, "method", "common");
  const int64_t digits = IntOr(a, 0, "precision", 0);
  if (method != "common" && method != "ceil" && method != "floor")
    return in.Fail("method must be common, ceil or floor");
  if (!v.is_number()) return in.Fail("round needs a number");
  if (method == "common") {
    return v.is_integral() ? Value::Int(RoundedTo(v.integer(), digits))
                           : Value(RoundedTo(v.number(), digits));
  }
  const double scale = std::pow(10.0, static_cast<double>(std::clamp<int64_t>(digits, -300, 300)));
  const double x = v.number() * scale;
  if (!std::isfinite(x)) return in.Fail("round: out of range");
  return Value((method == "ceil" ? std::ceil(x) : std::floor(x)) / scale);
}

Value Safe(Interpreter& in, const Value& v, const Arguments&) {
  return in.Charge(1) ? Value::Escaped(ToText(v)) : Value();
}
// Attributes only, no items: methods of the type, the fields of a namespace.
Value Attr(Interpreter& in, const Value& v, const Arguments& a) {
  const std::string name = TextOr(a, 0, "name", "");
  if (v.is_mapping() && FindMethod(v, name) == nullptr)
    return Value::MakeUndefined("'dict object' has no attribute '" + name + "'");
  return in.GetAttribute(v, name);
}
Value FormatFilter(Interpreter& in, const Value& v, const Arguments& a) {
  if (!a.named.empty()) {
    if (!a.positional.empty()) return in.Fail("format takes positions or names, not both");
    auto dict = std::make_shared<Dict>();
    for (const auto& [name, value] : a.named) dict->Set(Value::Str(name), value);
    return FormatPercent(in, ToText(v), Value(std::move(dict)));
  }
  return FormatPercent(in, ToText(v), Value::MakeList(a.positional, ListKind::kTuple));
}
template <bool kAgain>
Value Escape(Interpreter& in, const Value& v, const Arguments&) {
  if (v.is_markup() && !kAgain) return v;
  const std::string text = ToText(v);
  return in.Charge(text.size() / 64 + 1) ? Value::Escaped(EscapeHtml(text)) : Value();
}

}  // namespace

Operation FindFilter(std::string_view name) {
  static const std::map<std::string_view, Operation> filters = {{"abs", Abs},
                                                                {"attr", Attr},
                                                                {"capitalize", Mapped<Capitalize>},
                                                                {"center", Center},
                                                                {"count", LengthFilter},
                                                                {"d", DefaultFilter},
                                                                {"default", DefaultFilter},
                                                                {"e", Escape<false>},
                                                                {"escape", Escape<false>},
                                                                {"float", FloatFilter},
                                                                {"forceescape", Escape<true>},
                                                                {"format", FormatFilter},
                                                                {"indent", Indent},
                                                                {"int", IntFilter},
                                                                {"length", LengthFilter},
                                                                {"lower", Mapped<Lower>},
                                                                {"replace", ReplaceFilter},
                                                                {"round", Round},
                                                                {"safe", Safe},
                                                                {"string", StringFilter},
                                                                {"title", Mapped<TitleWords>},
                                                                {"tojson", ToJsonFilter},
                                                                {"trim", Trim},
                                                                {"truncate", Truncate},
                                                                {"upper", Mapped<Upper>},
                                                                {"wordcount", WordCount}};
  const auto found = filters.find(name);
  return found == filters.end() ? FindSequenceFilter(name) : found->second;
}

}  // namespace llmd::text::tmpl
