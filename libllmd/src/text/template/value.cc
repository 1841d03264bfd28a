#include "text/template/value.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "text/unicode.h"

namespace llmd::text::tmpl {
namespace {

constexpr int kCompareDepth = 100;

int Order(auto a, auto b) {
  return a < b ? -1 : b < a ? 1 : 0;
}

// Exact, as Python compares them; nothing for NaN.
std::optional<int> CompareNumbers(const Value& a, const Value& b) {
  if (a.is_integral() && b.is_integral()) return Order(a.integer(), b.integer());
  if (a.is_double() && b.is_double()) {
    if (std::isnan(a.number()) || std::isnan(b.number())) return std::nullopt;
    return Order(a.number(), b.number());
  }
  if (a.is_double()) {
    const auto other = CompareNumbers(b, a);
    return other ? std::optional<int>(-*other) : std::nullopt;
  }
  const double d = b.number();
  if (std::isnan(d)) return std::nullopt;
  if (d >= 0x1p127) return -1;
  if (d < -0x1p127) return 1;
  const auto whole = static_cast<Integer>(d);
  if (a.integer() != whole) return Order(a.integer(), whole);
  return Order(0.0, d - std::trunc(d));
}

bool SameItems(const std::vector<Value>& a, const std::vector<Value>& b, int depth) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [depth](const Value& x, const Value& y) { return Equal(x, y, depth + 1); });
}

bool SameSet(const std::vector<Value>& a, const std::vector<Value>& b, int depth) {
  return a.size() == b.size() && std::all_of(a.begin(), a.end(), [&](const Value& x) {
           return std::any_of(b.begin(), b.end(),
                              [&](const Value& y) { return Equal(x, y, depth + 1); });
         });
}

bool SameLists(const Value& a, const Value& b, int depth) {
  if (a.is_tuple() && b.is_tuple()) return SameItems(a.list(), b.list(), depth);
  if (&a.list_object() == &b.list_object()) return true;
  const bool sets = (a.list_kind() == ListKind::kKeys || a.list_kind() == ListKind::kItems) &&
                    (b.list_kind() == ListKind::kKeys || b.list_kind() == ListKind::kItems);
  if (sets) return SameSet(a.list(), b.list(), depth);
  return a.list_kind() == b.list_kind() && a.is_indexed() && SameItems(a.list(), b.list(), depth);
}

}  // namespace

const Value* Dict::Find(const Value& key) const {
  for (const auto& [k, v] : items) {
    if (Equal(k, key)) return &v;
  }
  return nullptr;
}

const Value* Dict::Find(std::string_view key) const {
  for (const auto& [k, v] : items) {
    if (k.is_string() && k.str() == key) return &v;
  }
  return nullptr;
}

void Dict::Set(Value key, Value value) {
  for (auto& [k, v] : items) {
    if (Equal(k, key)) {
      v = std::move(value);
      return;
    }
  }
  items.emplace_back(std::move(key), std::move(value));
}

const Value* Arguments::Get(size_t index, std::string_view name) const {
  if (index < positional.size()) return &positional[index];
  for (const auto& [key, value] : named) {
    if (key == name) return &value;
  }
  return nullptr;
}

int64_t Value::index() const {
  constexpr Integer kLeast = std::numeric_limits<int64_t>::min(),
                    kMost = std::numeric_limits<int64_t>::max();
  return static_cast<int64_t>(std::clamp(integer(), kLeast, kMost));
}

Value Value::MakeList(std::vector<Value> items, ListKind kind) {
  auto list = std::make_shared<List>();
  list->items = std::move(items);
  list->kind = kind;
  return Value(std::move(list));
}

// Recursion is bounded by the JSON parser's own depth limit.
Value Value::FromJson(const json::Value& v) {
  if (v.is_null()) return Value(None{});
  if (v.is_bool()) return Value(v.AsBool());
  // Of a negative number AsUint gives the fallback.
  if (v.is_int()) return Value::Int(v.AsUint() != 0 ? Integer{v.AsUint()} : Integer{v.AsInt()});
  if (v.is_double()) return Value(v.AsDouble());
  if (v.is_string()) return Str(v.AsString());
  if (v.is_array()) {
    std::vector<Value> items;
    items.reserve(v.AsArray().size());
    for (const json::Value& item : v.AsArray()) items.push_back(FromJson(item));
    return MakeList(std::move(items));
  }
  auto dict = std::make_shared<Dict>();
  for (const auto& [key, value] : v.AsObject()) dict->items.emplace_back(Str(key), FromJson(value));
  return Value(std::move(dict));
}

bool Value::Truthy() const {
  if (is_undefined() || is_none()) return false;
  if (is_number()) return number() != 0;
  if (is_string()) return !str().empty();
  if (is_list()) return is_iterator() || !list().empty();
  if (is_dict()) return dict().is_namespace || !dict().items.empty();
  return true;
}

bool Value::Hashable() const {
  if (is_mapping() || is_plain_list()) return false;
  return !is_tuple() || std::all_of(list().begin(), list().end(),
                                    [](const Value& item) { return item.Hashable(); });
}

std::string_view Value::TypeName() const {
  static constexpr std::string_view kLists[] = {
      "list", "tuple", "tuple", "range", "dict_keys", "dict_values", "dict_items", "generator"};
  if (is_undefined()) return "Undefined";
  if (is_none()) return "NoneType";
  if (is_bool()) return "bool";
  if (is_int()) return "int";
  if (is_double()) return "float";
  if (is_string()) return "str";
  if (is_list()) return kLists[static_cast<size_t>(list_kind())];
  if (is_dict()) return dict().is_namespace ? "Namespace" : "dict";
  return "function";
}

bool Equal(const Value& a, const Value& b, int depth) {
  if (depth > kCompareDepth) return false;
  if (a.is_number() && b.is_number()) return CompareNumbers(a, b) == 0;
  if (a.is_string() && b.is_string()) return a.str() == b.str();
  if (a.is_none() || a.is_undefined())
    return (a.is_none() && b.is_none()) || (a.is_undefined() && b.is_undefined());
  if (a.is_list() && b.is_list()) return SameLists(a, b, depth);
  if (a.is_dict() && b.is_dict()) {
    if (a.dict_pointer() == b.dict_pointer()) return true;
    if (a.dict().is_namespace || b.dict().is_namespace ||
        a.dict().items.size() != b.dict().items.size())
      return false;
    for (const auto& [key, value] : a.dict().items) {
      const Value* other = b.dict().Find(key);
      if (other == nullptr || !Equal(value, *other, depth + 1)) return false;
    }
    return true;
  }
  return a.is_callable() && b.is_callable() && &a.callable() == &b.callable();
}

std::optional<int> Compare(const Value& a, const Value& b, int depth) {
  if (depth > kCompareDepth) return std::nullopt;
  if (a.is_number() && b.is_number()) return CompareNumbers(a, b);
  if (a.is_string() && b.is_string()) return Order(a.str(), b.str());
  const bool lists = a.is_plain_list() && b.is_plain_list();
  if (!lists && !(a.is_tuple() && b.is_tuple())) return std::nullopt;
  const size_t both = std::min(a.list().size(), b.list().size());
  for (size_t i = 0; i < both; ++i) {
    if (Equal(a.list()[i], b.list()[i], depth + 1)) continue;
    return Compare(a.list()[i], b.list()[i], depth + 1);
  }
  return Order(a.list().size(), b.list().size());
}

size_t Length(std::string_view utf8) {
  return static_cast<size_t>(std::count_if(
      utf8.begin(), utf8.end(), [](char c) { return (static_cast<uint8_t>(c) & 0xC0) != 0x80; }));
}

std::vector<std::string_view> Characters(std::string_view utf8) {
  std::vector<std::string_view> out;
  out.reserve(utf8.size());
  const char* const end = utf8.data() + utf8.size();
  for (const char* at = utf8.data(); at < end; at += out.back().size()) {
    out.emplace_back(at, StepUtf8(at, end).length);
  }
  return out;
}

}  // namespace llmd::text::tmpl
