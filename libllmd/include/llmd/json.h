// JSON without a third-party type in sight. Two tools: Value, an ordered tree for small documents
// (configs, replies), and Scan*, which finds the members of a large body in place so that it can be
// read and edited without re-serialising.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "llmd/status.h"

namespace llmd::json {

class Value;
using Array = std::vector<Value>;
using Member = std::pair<std::string, Value>;
// Keeps the order of the text; on duplicate keys the last wins (RFC 8259 §4 leaves it open, Go and
// Python do this).
using Object = std::vector<Member>;

// A JSON value. Integers up to 64 bits are exact; anything larger becomes a double.
// Thread-compatible.
class Value {
 public:
  Value() = default;
  Value(std::nullptr_t) {}  // NOLINT: implicit by design, as are the next ones
  // Only bool itself, so that no pointer turns into one.
  template <std::same_as<bool> T>
  Value(T v) : v_(v) {}  // NOLINT
  template <std::integral T>
    requires(!std::same_as<T, bool>)
  Value(T v) {  // NOLINT
    if (std::in_range<int64_t>(v)) {
      v_ = static_cast<int64_t>(v);
    } else {
      v_ = static_cast<uint64_t>(v);
    }
  }
  Value(double v) : v_(v) {}                         // NOLINT
  Value(const char* v) : v_(std::string(v)) {}       // NOLINT
  Value(std::string v) : v_(std::move(v)) {}         // NOLINT
  Value(std::string_view v) : v_(std::string(v)) {}  // NOLINT
  Value(Array v) : v_(std::move(v)) {}               // NOLINT
  Value(Object v) : v_(std::move(v)) {}              // NOLINT

  bool is_null() const { return std::holds_alternative<std::monostate>(v_); }
  bool is_bool() const { return std::holds_alternative<bool>(v_); }
  // An integer of either sign.
  bool is_int() const {
    return std::holds_alternative<int64_t>(v_) || std::holds_alternative<uint64_t>(v_);
  }
  bool is_double() const { return std::holds_alternative<double>(v_); }
  bool is_number() const { return is_int() || is_double(); }
  bool is_string() const { return std::holds_alternative<std::string>(v_); }
  bool is_array() const { return std::holds_alternative<Array>(v_); }
  bool is_object() const { return std::holds_alternative<Object>(v_); }
  // "null", "boolean", "integer", "number", "string", "array" or "object".
  std::string_view TypeName() const;

  // The value if it has that type, else the fallback.
  bool AsBool(bool fallback = false) const;
  int64_t AsInt(int64_t fallback = 0) const;  // doubles with no fraction convert
  uint64_t AsUint(uint64_t fallback = 0) const;
  double AsDouble(double fallback = 0) const;  // integers convert
  const std::string& AsString() const;         // "" when not a string
  const Array& AsArray() const;                // empty when not an array
  const Object& AsObject() const;              // empty when not an object
  Array* MutableArray() { return std::get_if<Array>(&v_); }
  Object* MutableObject() { return std::get_if<Object>(&v_); }

  // The member's value, or null pointer when this is no object or has no such key.
  const Value* Find(std::string_view key) const;
  Value* Find(std::string_view key);
  // Member by key; a shared null value when absent.
  const Value& operator[](std::string_view key) const;
  // Element by index; a shared null value when this is no array or ends before it.
  const Value& operator[](size_t index) const;
  // Sets or replaces a member, keeping its place; turns null into an object.
  void Set(std::string_view key, Value value);
  // Removes a member; false when absent.
  bool Erase(std::string_view key);

  // Compact text; non-ASCII is written as UTF-8, invalid UTF-8 as U+FFFD, infinities and NaN as
  // null.
  std::string Dump() const;
  void DumpTo(std::string& out) const;
  // Indented by `indent` blanks a level.
  std::string DumpPretty(int indent = 2) const;

  friend bool operator==(const Value&, const Value&) = default;

 private:
  std::variant<std::monostate, bool, int64_t, uint64_t, double, std::string, Array, Object> v_;
};

struct ParseLimits {
  size_t max_depth =
      1000;  // of nested containers; Parse takes no more than 1000, the scanners any number
  // For the scanners: the text is part of one that has been scanned. Strings are then only looked
  // through for their end, which is several times faster.
  bool validated = false;
};

// INVALID_ARGUMENT with byte offset and reason. A byte order mark, trailing text and comments are
// errors.
StatusOr<Value> Parse(std::string_view text, ParseLimits limits = {});

// Appends `s` as a JSON string with its quotes.
void AppendQuoted(std::string& out, std::string_view s);

// Where one member of an object stands in the text it was scanned from.
struct Span {
  size_t begin = 0;  // bytes, half open
  size_t end = 0;
  size_t size() const { return end - begin; }
  std::string_view In(std::string_view text) const { return text.substr(begin, end - begin); }
};
struct ScannedMember {
  Span key;                                               // with its quotes
  Span value;                                             // without surrounding blanks
  std::string_view KeyText(std::string_view text) const;  // without quotes; escapes are not undone
};

// The members of the object `text`, in order, values unparsed but checked for grammar; one pass, no
// copy. INVALID_ARGUMENT with the offset when `text` is not one JSON object.
StatusOr<std::vector<ScannedMember>> ScanObject(std::string_view text, ParseLimits limits = {});
// The same for arrays: the elements' spans.
StatusOr<std::vector<Span>> ScanArray(std::string_view text, ParseLimits limits = {});
// The last member with that key (escapes in keys are undone for the comparison); null pointer when
// absent.
const ScannedMember* FindMember(const std::vector<ScannedMember>& members, std::string_view text,
                                std::string_view key);
// Undoes the escapes of a quoted JSON string (with its quotes).
StatusOr<std::string> Unquote(std::string_view quoted);
// What UnescapeTo may write beyond the text's own size.
inline constexpr size_t kUnescapeSlack = 16;
// Writes what stands between the quotes of a string that has been scanned, escapes undone (lone
// surrogates become U+FFFD), and gives its size, which is never above inner.size(). `out` has room
// for inner.size() + kUnescapeSlack bytes.
size_t UnescapeTo(std::string_view inner, char* out);

}  // namespace llmd::json
