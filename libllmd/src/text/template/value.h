// Values of the template language: Python's, as far as chat templates see them. Copies share
// strings and containers. Thread-compatible; one render owns its values.
#pragma once

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

struct Undefined {
  std::string what;  // the name that was looked up, for messages
};
struct None {};

struct List {
  std::vector<Value> items;
  bool tuple = false;
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
  using Storage =
      std::variant<Undefined, None, bool, int64_t, double, std::shared_ptr<const std::string>,
                   std::shared_ptr<List>, std::shared_ptr<Dict>, std::shared_ptr<const Callable>>;
  Value() = default;
  template <typename T>
    requires std::constructible_from<Storage, T>
  explicit Value(T v) : v_(std::move(v)) {}
  static Value Str(std::string s) {
    return Value(std::make_shared<const std::string>(std::move(s)));
  }
  static Value Int(int64_t i) { return Value(i); }
  static Value MakeList(std::vector<Value> items, bool tuple = false);
  static Value MakeUndefined(std::string what) { return Value(Undefined{std::move(what)}); }
  static Value FromJson(const json::Value& v);

  bool is_undefined() const { return std::holds_alternative<Undefined>(v_); }
  bool is_none() const { return std::holds_alternative<None>(v_); }
  bool is_bool() const { return std::holds_alternative<bool>(v_); }
  bool is_int() const { return std::holds_alternative<int64_t>(v_); }
  bool is_double() const { return std::holds_alternative<double>(v_); }
  bool is_number() const { return is_int() || is_double() || is_bool(); }
  bool is_integral() const { return is_int() || is_bool(); }
  bool is_string() const { return std::holds_alternative<std::shared_ptr<const std::string>>(v_); }
  bool is_list() const { return std::holds_alternative<std::shared_ptr<List>>(v_); }
  bool is_dict() const { return std::holds_alternative<std::shared_ptr<Dict>>(v_); }
  bool is_callable() const { return std::holds_alternative<std::shared_ptr<const Callable>>(v_); }

  const Undefined& undefined() const { return std::get<Undefined>(v_); }
  int64_t integer() const {
    return is_bool() ? std::get<bool>(v_) : std::get<int64_t>(v_);
  }  // is_integral()
  double number() const {
    return is_double() ? std::get<double>(v_) : static_cast<double>(integer());
  }
  const std::string& str() const { return *std::get<std::shared_ptr<const std::string>>(v_); }
  const std::vector<Value>& list() const { return std::get<std::shared_ptr<List>>(v_)->items; }
  List& list_object() const { return *std::get<std::shared_ptr<List>>(v_); }
  const Dict& dict() const { return *std::get<std::shared_ptr<Dict>>(v_); }
  Dict& dict_object() const { return *std::get<std::shared_ptr<Dict>>(v_); }
  const std::shared_ptr<Dict>& dict_pointer() const { return std::get<std::shared_ptr<Dict>>(v_); }
  const Callable& callable() const { return *std::get<std::shared_ptr<const Callable>>(v_); }

  bool Truthy() const;
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

struct JsonStyle {
  int indent = -1;  // one line
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
