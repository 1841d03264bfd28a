#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <numeric>

#include "text/template/strings.h"

namespace llmd::text::tmpl {
namespace {

bool Truth(const Arguments& a, size_t i, std::string_view name) {
  const Value* v = a.Get(i, name);
  return v != nullptr && v->Truthy();
}
int64_t IntOr(const Arguments& a, size_t i, std::string_view name, int64_t fallback) {
  const Value* v = a.Get(i, name);
  return v != nullptr && v->is_integral() ? v->integer() : fallback;
}
std::string TextOr(const Arguments& a, size_t i, std::string_view name, std::string fallback) {
  const Value* v = a.Get(i, name);
  return v != nullptr ? ToText(*v) : std::move(fallback);
}

// "a.b.0" from an item, as jinja's make_attrgetter.
Value AttributePath(Interpreter& in, Value item, const Value& path) {
  if (path.is_integral()) return in.GetItem(item, path);
  std::string_view rest = path.is_string() ? std::string_view(path.str()) : std::string_view();
  while (!in.failed()) {
    const size_t dot = rest.find('.');
    const std::string part(rest.substr(0, dot));
    int64_t index = 0;
    const auto parsed = std::from_chars(part.data(), part.data() + part.size(), index);
    const bool number = parsed.ec == std::errc() && parsed.ptr == part.data() + part.size();
    if (item.is_undefined()) return item;
    item = in.GetItem(item, number ? Value::Int(index) : Value::Str(part));
    if (dot == rest.npos) break;
    rest.remove_prefix(dot + 1);
  }
  return item;
}

Value ToJsonFilter(Interpreter& in, const Value& v, const Arguments& a) {
  JsonStyle style;
  style.ensure_ascii = Truth(a, 0, "ensure_ascii");
  if (const Value* indent = a.Get(1, "indent"); indent != nullptr && indent->is_integral()) {
    style.indent = static_cast<int>(std::clamp<int64_t>(indent->integer(), 0, 64));
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
  if (v.is_string())
    return in.Charge(v.str().size() / 64) ? Value::Int(static_cast<int64_t>(Length(v.str())))
                                          : Value();
  if (v.is_list()) return Value::Int(static_cast<int64_t>(v.list().size()));
  if (v.is_dict()) return Value::Int(static_cast<int64_t>(v.dict().items.size()));
  return in.Fail("object of type '" + std::string(v.TypeName()) + "' has no len()");
}
Value Trim(Interpreter& in, const Value& v, const Arguments& a) {
  return in.Str(Strip(ToText(v), a.Get(0, "chars"), "lr"));
}
Value StringFilter(Interpreter& in, const Value& v, const Arguments&) {
  return v.is_string() ? v : in.Str(ToText(v));
}
Value LowerFilter(Interpreter& in, const Value& v, const Arguments&) {
  return in.Str(Lower(ToText(v)));
}
Value UpperFilter(Interpreter& in, const Value& v, const Arguments&) {
  return in.Str(Upper(ToText(v)));
}
Value CapitalizeFilter(Interpreter& in, const Value& v, const Arguments&) {
  return in.Str(Capitalize(ToText(v)));
}
Value TitleFilter(Interpreter& in, const Value& v, const Arguments&) {
  return in.Str(Title(ToText(v)));
}
Value DefaultFilter(Interpreter&, const Value& v, const Arguments& a) {
  const bool missing = v.is_undefined() || (Truth(a, 1, "boolean") && !v.Truthy());
  if (!missing) return v;
  const Value* fallback = a.Get(0, "default_value");
  return fallback != nullptr ? *fallback : Value::Str("");
}
Value Join(Interpreter& in, const Value& v, const Arguments& a) {
  const std::string separator = TextOr(a, 0, "d", "");
  const Value* attribute = a.Get(1, "attribute");
  std::string text;
  bool first = true;
  for (const Value& item : in.Iterate(v)) {
    if (!first) text += separator;
    first = false;
    text += ToText(attribute != nullptr ? AttributePath(in, item, *attribute) : item);
    if (!in.Charge(separator.size() / 64 + 1)) return Value();
  }
  return in.Str(std::move(text));
}
Value Items(Interpreter& in, const Value& v, const Arguments&) {
  if (v.is_undefined()) return Value::MakeList({});
  if (!v.is_dict()) return in.Fail("Can only get item pairs from a mapping.");
  std::vector<Value> pairs;
  for (const auto& [key, value] : v.dict().items)
    pairs.push_back(Value::MakeList({key, value}, true));
  return in.Charge(pairs.size()) ? Value::MakeList(std::move(pairs)) : Value();
}
Value ListFilter(Interpreter& in, const Value& v, const Arguments&) {
  return Value::MakeList(in.Iterate(v));
}

// select, reject and their attr forms: `at` is the index of the test's name.
Value Choose(Interpreter& in, const Value& v, const Arguments& a, bool by_attribute, bool keep) {
  const size_t at = by_attribute ? 1 : 0;
  if (by_attribute && a.positional.empty())
    return in.Fail("selectattr and rejectattr need an attribute's name");
  Arguments rest;
  if (a.positional.size() > at + 1)
    rest.positional.assign(a.positional.begin() + static_cast<ptrdiff_t>(at) + 1,
                           a.positional.end());
  std::vector<Value> kept;
  for (const Value& item : in.Iterate(v)) {
    const Value subject = by_attribute ? AttributePath(in, item, a.positional[0]) : item;
    const bool passes = a.positional.size() > at
                            ? in.ApplyTest(ToText(a.positional[at]), subject, rest)
                            : subject.Truthy();
    if (!in.Charge(1)) return Value();
    if (passes == keep) kept.push_back(item);
  }
  return Value::MakeList(std::move(kept));
}
Value Select(Interpreter& in, const Value& v, const Arguments& a) {
  return Choose(in, v, a, false, true);
}
Value Reject(Interpreter& in, const Value& v, const Arguments& a) {
  return Choose(in, v, a, false, false);
}
Value SelectAttr(Interpreter& in, const Value& v, const Arguments& a) {
  return Choose(in, v, a, true, true);
}
Value RejectAttr(Interpreter& in, const Value& v, const Arguments& a) {
  return Choose(in, v, a, true, false);
}

Value Map(Interpreter& in, const Value& v, const Arguments& a) {
  const Value* attribute = a.Get(SIZE_MAX, "attribute");
  const Value* fallback = a.Get(SIZE_MAX, "default");
  if (attribute == nullptr && a.positional.empty())
    return in.Fail("map needs a filter's name or attribute=");
  Arguments rest;
  if (a.positional.size() > 1) rest.positional.assign(a.positional.begin() + 1, a.positional.end());
  if (attribute == nullptr) rest.named = a.named;
  std::vector<Value> out;
  for (const Value& item : in.Iterate(v)) {
    Value mapped = attribute != nullptr ? AttributePath(in, item, *attribute)
                                        : in.ApplyFilter(ToText(a.positional[0]), item, rest);
    if (!in.Charge(1)) return Value();
    if (mapped.is_undefined() && fallback != nullptr) mapped = *fallback;
    out.push_back(std::move(mapped));
  }
  return Value::MakeList(std::move(out));
}

Value Folded(const Value& v, bool case_sensitive) {
  return v.is_string() && !case_sensitive ? Value::Str(Lower(v.str())) : v;
}

// Stable; fails on what has no order.
bool SortBy(Interpreter& in, std::vector<Value>& items, const std::vector<Value>& keys,
            bool reverse) {
  if (!in.Charge(items.size() * 4)) return false;
  for (size_t i = 1; i < keys.size(); ++i) {
    if (Compare(keys[0], keys[i])) continue;
    in.Fail("'<' not supported between '" + std::string(keys[i].TypeName()) + "' and '" +
            std::string(keys[0].TypeName()) + "'");
    return false;
  }
  std::vector<size_t> order(items.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    const int c = Compare(keys[a], keys[b]).value_or(0);
    return c != 0 ? (reverse ? c > 0 : c < 0) : a < b;
  });
  std::vector<Value> sorted;
  sorted.reserve(items.size());
  for (const size_t i : order) sorted.push_back(items[i]);
  items = std::move(sorted);
  return true;
}
Value Sort(Interpreter& in, const Value& v, const Arguments& a) {
  std::vector<Value> items = in.Iterate(v), keys;
  const Value* attribute = a.Get(2, "attribute");
  const bool exact = Truth(a, 1, "case_sensitive");
  for (const Value& item : items)
    keys.push_back(
        Folded(attribute != nullptr ? AttributePath(in, item, *attribute) : item, exact));
  return SortBy(in, items, keys, Truth(a, 0, "reverse")) ? Value::MakeList(std::move(items))
                                                         : Value();
}
Value DictSort(Interpreter& in, const Value& v, const Arguments& a) {
  if (!v.is_dict()) return in.Fail("dictsort needs a mapping");
  const bool exact = Truth(a, 0, "case_sensitive"), by_value = TextOr(a, 1, "by", "key") == "value";
  std::vector<Value> items, keys;
  for (const auto& [key, value] : v.dict().items) {
    items.push_back(Value::MakeList({key, value}, true));
    keys.push_back(Folded(by_value ? value : key, exact));
  }
  return SortBy(in, items, keys, Truth(a, 2, "reverse")) ? Value::MakeList(std::move(items))
                                                         : Value();
}
Value Unique(Interpreter& in, const Value& v, const Arguments& a) {
  const bool exact = Truth(a, 0, "case_sensitive");
  const Value* attribute = a.Get(1, "attribute");
  std::vector<Value> out, seen;
  for (const Value& item : in.Iterate(v)) {
    Value key = Folded(attribute != nullptr ? AttributePath(in, item, *attribute) : item, exact);
    if (!in.Charge(seen.size() / 8 + 1)) return Value();
    if (std::any_of(seen.begin(), seen.end(), [&](const Value& s) { return Equal(s, key); }))
      continue;
    seen.push_back(std::move(key));
    out.push_back(item);
  }
  return Value::MakeList(std::move(out));
}
Value Extreme(Interpreter& in, const Value& v, const Arguments& a, int sign) {
  const Value* attribute = a.Get(1, "attribute");
  const bool exact = Truth(a, 0, "case_sensitive");
  const std::vector<Value> items = in.Iterate(v);
  const auto key = [&](const Value& item) {
    return Folded(attribute != nullptr ? AttributePath(in, item, *attribute) : item, exact);
  };
  const Value* best = nullptr;
  for (const Value& item : items) {
    const auto order = best != nullptr ? Compare(key(item), key(*best)) : sign;
    if (!order) return in.Fail("min and max need values that can be ordered");
    if (*order == sign || best == nullptr) best = &item;
  }
  return best != nullptr ? *best : Value::MakeUndefined("No aggregated item, sequence was empty.");
}
Value Min(Interpreter& in, const Value& v, const Arguments& a) {
  return Extreme(in, v, a, -1);
}
Value Max(Interpreter& in, const Value& v, const Arguments& a) {
  return Extreme(in, v, a, 1);
}
Value First(Interpreter& in, const Value& v, const Arguments&) {
  const auto items = in.Iterate(v);
  return items.empty() ? Value::MakeUndefined("No first item, sequence was empty.") : items.front();
}
Value Last(Interpreter& in, const Value& v, const Arguments&) {
  const auto items = in.Iterate(v);
  return items.empty() ? Value::MakeUndefined("No last item, sequence was empty.") : items.back();
}
Value Reverse(Interpreter& in, const Value& v, const Arguments&) {
  std::vector<Value> items = in.Iterate(v);
  std::reverse(items.begin(), items.end());
  if (!v.is_string()) return Value::MakeList(std::move(items));
  std::string text;
  for (const Value& c : items) text += c.str();
  return Value::Str(std::move(text));
}
Value Sum(Interpreter& in, const Value& v, const Arguments& a) {
  const Value* attribute = a.Get(0, "attribute");
  Value total = Value::Int(IntOr(a, 1, "start", 0));
  for (const Value& item : in.Iterate(v))
    total = in.Arithmetic("+", total,
                          attribute != nullptr ? AttributePath(in, item, *attribute) : item);
  return total;
}
Value ReplaceFilter(Interpreter& in, const Value& v, const Arguments& a) {
  return Replace(in, ToText(v), TextOr(a, 0, "old", ""), TextOr(a, 1, "new", ""),
                 IntOr(a, 2, "count", -1));
}
Value Indent(Interpreter& in, const Value& v, const Arguments& a) {
  const Value* width = a.Get(0, "width");
  const std::string text = ToText(v);
  const int64_t count =
      width != nullptr && width->is_integral() ? std::clamp<int64_t>(width->integer(), 0, 1000) : 4;
  const std::string pad = width != nullptr && width->is_string()
                              ? width->str()
                              : std::string(static_cast<size_t>(count), ' ');
  const bool blank = Truth(a, 2, "blank");
  std::string out;
  for (size_t start = 0, line = 0; start <= text.size(); ++line) {
    const size_t end = std::min(text.find('\n', start), text.size());
    if (line > 0) out += '\n';
    if (line == 0 ? Truth(a, 1, "first") : blank || end > start) out += pad;
    out.append(text, start, end - start);
    if (!in.Charge(pad.size() / 64 + 1)) return Value();
    start = end + 1;
  }
  return in.Str(std::move(out));
}
Value IntFilter(Interpreter& in, const Value& v, const Arguments& a) {
  if (v.is_integral()) return Value::Int(v.integer());
  Value fallback = Value::Int(IntOr(a, 0, "default", 0));
  double number = 0;
  if (v.is_double()) {
    number = v.number();
  } else if (v.is_string()) {
    std::string text = Strip(v.str(), nullptr, "lr");
    if (text.starts_with('+')) text.erase(0, 1);
    const char* const end = text.data() + text.size();
    int64_t integer = 0;
    if (const auto r = std::from_chars(text.data(), end, integer);
        r.ec == std::errc() && r.ptr == end)
      return Value::Int(integer);
    if (const auto r = std::from_chars(text.data(), end, number);
        text.empty() || r.ec != std::errc() || r.ptr != end)
      return fallback;
  } else {
    return fallback;
  }
  if (!(std::fabs(number) < 9.2e18))
    return in.Fail("int: " + FloatText(number) + " is out of range");
  return Value::Int(static_cast<int64_t>(number));
}
Value FloatFilter(Interpreter&, const Value& v, const Arguments& a) {
  if (v.is_number()) return Value(v.number());
  const Value* fallback = a.Get(0, "default");
  double number = 0;
  if (v.is_string()) {
    const std::string text = Strip(v.str(), nullptr, "lr");
    const auto r = std::from_chars(text.data(), text.data() + text.size(), number);
    if (!text.empty() && r.ec == std::errc() && r.ptr == text.data() + text.size())
      return Value(number);
  }
  return fallback != nullptr ? *fallback : Value(0.0);
}
Value Abs(Interpreter& in, const Value& v, const Arguments&) {
  if (!v.is_number()) return in.Fail("abs needs a number");
  if (v.is_double()) return Value(std::fabs(v.number()));
  return v.integer() < 0 ? in.Arithmetic("-", Value::Int(0), v) : v;
}
Value Round(Interpreter& in, const Value& v, const Arguments& a) {
  if (!v.is_number()) return in.Fail("round needs a number");
  const double scale = std::pow(
      10.0, static_cast<double>(std::clamp<int64_t>(IntOr(a, 0, "precision", 0), -15, 15)));
  const std::string method = TextOr(a, 1, "method", "common");
  const double x = v.number() * scale;
  const double rounded = method == "ceil"    ? std::ceil(x)
                         : method == "floor" ? std::floor(x)
                                             : std::nearbyint(x);
  return Value(rounded / scale);
}
Value Safe(Interpreter&, const Value& v, const Arguments&) {
  return v;
}
Value Attr(Interpreter& in, const Value& v, const Arguments& a) {
  return in.GetAttribute(v, TextOr(a, 0, "name", ""));
}
Value FormatFilter(Interpreter& in, const Value& v, const Arguments& a) {
  return FormatPercent(in, ToText(v), a);
}
Value Escape(Interpreter& in, const Value& v, const Arguments&) {
  std::string out;
  for (const char c : ToText(v)) {
    const std::string_view entity = c == '&'    ? "&amp;"
                                    : c == '<'  ? "&lt;"
                                    : c == '>'  ? "&gt;"
                                    : c == '"'  ? "&#34;"
                                    : c == '\'' ? "&#39;"
                                                : "";
    entity.empty() ? out += c : out += entity;
  }
  return in.Str(std::move(out));
}

}  // namespace

Operation FindFilter(std::string_view name) {
  static const std::map<std::string_view, Operation> filters = {{"abs", Abs},
                                                                {"attr", Attr},
                                                                {"capitalize", CapitalizeFilter},
                                                                {"count", LengthFilter},
                                                                {"d", DefaultFilter},
                                                                {"default", DefaultFilter},
                                                                {"dictsort", DictSort},
                                                                {"e", Escape},
                                                                {"escape", Escape},
                                                                {"first", First},
                                                                {"float", FloatFilter},
                                                                {"format", FormatFilter},
                                                                {"indent", Indent},
                                                                {"int", IntFilter},
                                                                {"items", Items},
                                                                {"join", Join},
                                                                {"last", Last},
                                                                {"length", LengthFilter},
                                                                {"list", ListFilter},
                                                                {"lower", LowerFilter},
                                                                {"map", Map},
                                                                {"max", Max},
                                                                {"min", Min},
                                                                {"reject", Reject},
                                                                {"rejectattr", RejectAttr},
                                                                {"replace", ReplaceFilter},
                                                                {"reverse", Reverse},
                                                                {"round", Round},
                                                                {"safe", Safe},
                                                                {"select", Select},
                                                                {"selectattr", SelectAttr},
                                                                {"sort", Sort},
                                                                {"string", StringFilter},
                                                                {"sum", Sum},
                                                                {"title", TitleFilter},
                                                                {"tojson", ToJsonFilter},
                                                                {"trim", Trim},
                                                                {"unique", Unique},
                                                                {"upper", UpperFilter}};
  const auto found = filters.find(name);
  return found == filters.end() ? nullptr : found->second;
}

}  // namespace llmd::text::tmpl
