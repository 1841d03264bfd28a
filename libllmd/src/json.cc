#include "llmd/json.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace llmd::json {
namespace {

template <typename Integer>
Integer FromDouble(double d, Integer fallback) {
  // The upper bound itself rounds up to a power of two that does not fit, hence the strict
  // comparison.
  if (d != std::trunc(d) || d < static_cast<double>(std::numeric_limits<Integer>::min()) ||
      d >= static_cast<double>(std::numeric_limits<Integer>::max())) {
    return fallback;
  }
  return static_cast<Integer>(d);
}

const Value kNull;

}  // namespace

std::string_view Value::TypeName() const {
  switch (v_.index()) {
    case 0:
      return "null";
    case 1:
      return "boolean";
    case 2:
    case 3:
      return "integer";
    case 4:
      return "number";
    case 5:
      return "string";
    case 6:
      return "array";
    default:
      return "object";
  }
}

bool Value::AsBool(bool fallback) const {
  const bool* b = std::get_if<bool>(&v_);
  return b ? *b : fallback;
}

int64_t Value::AsInt(int64_t fallback) const {
  if (const auto* i = std::get_if<int64_t>(&v_)) return *i;
  if (const auto* d = std::get_if<double>(&v_)) return FromDouble<int64_t>(*d, fallback);
  return fallback;
}

uint64_t Value::AsUint(uint64_t fallback) const {
  if (const auto* u = std::get_if<uint64_t>(&v_)) return *u;
  if (const auto* i = std::get_if<int64_t>(&v_))
    return *i >= 0 ? static_cast<uint64_t>(*i) : fallback;
  if (const auto* d = std::get_if<double>(&v_)) return FromDouble<uint64_t>(*d, fallback);
  return fallback;
}

double Value::AsDouble(double fallback) const {
  if (const auto* d = std::get_if<double>(&v_)) return *d;
  if (const auto* i = std::get_if<int64_t>(&v_)) return static_cast<double>(*i);
  if (const auto* u = std::get_if<uint64_t>(&v_)) return static_cast<double>(*u);
  return fallback;
}

const std::string& Value::AsString() const {
  static const std::string kEmpty;
  const auto* s = std::get_if<std::string>(&v_);
  return s ? *s : kEmpty;
}

const Array& Value::AsArray() const {
  static const Array kEmpty;
  const auto* a = std::get_if<Array>(&v_);
  return a ? *a : kEmpty;
}

const Object& Value::AsObject() const {
  static const Object kEmpty;
  const auto* o = std::get_if<Object>(&v_);
  return o ? *o : kEmpty;
}

const Value* Value::Find(std::string_view key) const {
  const auto* members = std::get_if<Object>(&v_);
  if (!members) return nullptr;
  const auto it = std::find_if(members->begin(), members->end(),
                               [key](const Member& m) { return m.first == key; });
  return it == members->end() ? nullptr : &it->second;
}

Value* Value::Find(std::string_view key) {
  return const_cast<Value*>(static_cast<const Value*>(this)->Find(key));
}

const Value& Value::operator[](std::string_view key) const {
  const Value* found = Find(key);
  return found ? *found : kNull;
}

const Value& Value::operator[](size_t index) const {
  const Array& array = AsArray();
  return index < array.size() ? array[index] : kNull;
}

void Value::Set(std::string_view key, Value value) {
  if (is_null()) v_ = Object{};
  LLMD_CHECK(is_object());
  if (Value* found = Find(key)) {
    *found = std::move(value);
  } else {
    MutableObject()->emplace_back(std::string(key), std::move(value));
  }
}

bool Value::Erase(std::string_view key) {
  Object* members = MutableObject();
  return members && std::erase_if(*members, [key](const Member& m) { return m.first == key; }) > 0;
}

}  // namespace llmd::json
