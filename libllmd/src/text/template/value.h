// Values of the template language: Python's, as far as chat templates see them. Copies share
// strings and containers. Thread-compatible; one render owns its values.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "llmd/json.h"

namespace llmd::text::tmpl {

class Value;
class Interpreter;

// Python's int, exact up to 127 bits; beyond is an error.
__extension__ typedef __int128 Integer;

struct Undefined {
  std::string what;  // the name that was looked up, for messages
};
struct None {};
// Text that is taken as escaped, as `safe` and `escape` give it: what is added to it is escaped.
struct Markup {
  std::shared_ptr<const std::string> text;
};

// Python's sequences and what it has between them and plain iteration.
enum class ListKind : uint8_t {
  kList,
  kTuple,
  kGroup,  // a tuple (grouper, list) of the filter groupby
  kRange,  // of range(); `range` says how it prints
  kKeys,   // of dict.keys() and its kin: a length, no index
  kValues,
  kItems,
  kIterator,  // what map, select and others give: always true, without a length, walked once
};

struct List {
  std::vector<Value> items;
  ListKind kind = ListKind::kList;
  std::array<Integer, 3> range{};  // start, stop, step
};

struct Dict {
  std::vector<std::pair<Value, Value>> items;  // in insertion order
  bool is_namespace = false;
  const Value* Find(const Value& key) const;
  const Value* Find(std::string_view key) const;
  void Set(Value key, Value value);
};

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
  // The argument at `index` or by name; null pointer when not given.
  const Value* Get(size_t index, std::string_view name) const;
};

struct Callable {
  std::string name;
  std::function<Value(Interpreter&, const Arguments&)> call;
};

class Value {
 public:
  using Storage = std::variant<Undefined, None, bool, Integer, double,
                               std::shared_ptr<const std::string>, Markup, std::shared_ptr<List>,
                               std::shared_ptr<Dict>, std::shared_ptr<const Callable>>;
  Value() = default;
  template <typename T>
    requires std::constructible_from<Storage, T>
  explicit Value(T v) : v_(std::move(v)) {}
  static Value Str(std::string s) {
    return Value(std::make_shared<const std::string>(std::move(s)));
  }
  static Value Escaped(std::string s) {
    return Value(Markup{std::make_shared<const std::string>(std::move(s))});
  }
  static Value Int(Integer i) { return Value(i); }
  static Value Size(size_t n) { return Value(static_cast<Integer>(n)); }
  static Value MakeList(std::vector<Value> items, ListKind kind = ListKind::kList);
  static Value MakeUndefined(std::string what) { return Value(Undefined{std::move(what)}); }
  static Value FromJson(const json::Value& v);

  bool is_undefined() const { return std::holds_alternative<Undefined>(v_); }
  bool is_none() const { return std::holds_alternative<None>(v_); }
  bool is_bool() const { return std::holds_alternative<bool>(v_); }
  bool is_int() const { return std::holds_alternative<Integer>(v_); }
  bool is_double() const { return std::holds_alternative<double>(v_); }
  bool is_number() const { return is_int() || is_double() || is_bool(); }
  bool is_integral() const { return is_int() || is_bool(); }
  bool is_string() const {
    return std::holds_alternative<std::shared_ptr<const std::string>>(v_) || is_markup();
  }
  bool is_markup() const { return std::holds_alternative<Markup>(v_); }
  bool is_list() const { return std::holds_alternative<std::shared_ptr<List>>(v_); }
  bool is_dict() const { return std::holds_alternative<std::shared_ptr<Dict>>(v_); }
  bool is_callable() const { return std::holds_alternative<std::shared_ptr<const Callable>>(v_); }

  const Undefined& undefined() const { return std::get<Undefined>(v_); }
  // is_integral()
  Integer integer() const {
    return is_bool() ? Integer{std::get<bool>(v_)} : std::get<Integer>(v_);
  }
  // The same within int64_t, what lies outside at its ends: for places and counts.
  int64_t index() const;
  double number() const {
    return is_double() ? std::get<double>(v_) : static_cast<double>(integer());
  }
  const std::string& str() const {
    return is_markup() ? *std::get<Markup>(v_).text
                       : *std::get<std::shared_ptr<const std::string>>(v_);
  }
  const std::vector<Value>& list() const { return std::get<std::shared_ptr<List>>(v_)->items; }
  ListKind list_kind() const { return list_object().kind; }
  bool is_tuple() const {
    return is_list() && (list_kind() == ListKind::kTuple || list_kind() == ListKind::kGroup);
  }
  bool is_plain_list() const { return is_list() && list_kind() == ListKind::kList; }
  bool is_iterator() const { return is_list() && list_kind() == ListKind::kIterator; }
  // Has places 0, 1, …: list, tuple, range.
  bool is_indexed() const { return is_list() && list_kind() <= ListKind::kRange; }
  bool is_mapping() const { return is_dict() && !dict().is_namespace; }
  List& list_object() const { return *std::get<std::shared_ptr<List>>(v_); }
  const Dict& dict() const { return *std::get<std::shared_ptr<Dict>>(v_); }
  Dict& dict_object() const { return *std::get<std::shared_ptr<Dict>>(v_); }
  const std::shared_ptr<Dict>& dict_pointer() const { return std::get<std::shared_ptr<Dict>>(v_); }
  const Callable& callable() const { return *std::get<std::shared_ptr<const Callable>>(v_); }

  bool Truthy() const;
  // May be a key: no list or dict in it.
  bool Hashable() const;
  // Python's type name, as error messages show it.
  std::string_view TypeName() const;

 private:
  Storage v_;
};

bool Equal(const Value& a, const Value& b, int depth = 0);
// -1, 0, 1; nullopt when the two have no order.
std::optional<int> Compare(const Value& a, const Value& b, int depth = 0);

// str(value) and repr(value) of Python; nested deeper than a fixed bound prints "...".
std::string ToText(const Value& value);
std::string Repr(const Value& value);
std::string FloatText(double d);
std::string IntegerText(Integer i, unsigned base = 10);

struct JsonStyle {
  int indent = -1;          // one line
  std::string indent_text;  // instead of `indent` blanks when not empty
  std::string item_separator = ", ";
  std::string key_separator = ": ";
  bool sort_keys = false;
  bool ensure_ascii = false;
};
// json.dumps(value); nullopt and `bad_type` for what JSON has no word for.
std::optional<std::string> ToJson(const Value& value, const JsonStyle& style,
                                  std::string& bad_type);

// Strings by code point, as Python counts.
size_t Length(std::string_view utf8);
std::vector<std::string_view> Characters(std::string_view utf8);

}  // namespace llmd::text::tmpl
