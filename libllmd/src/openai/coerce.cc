#include "llmd/openai/coerce.h"

#include <charconv>
#include <cmath>
#include <limits>

namespace llmd::openai {
namespace {

constexpr size_t kMaxShownBytes = 120;

std::string_view Trim(std::string_view s) {
  constexpr std::string_view kBlanks = " \t\r\n\f\v";
  const size_t begin = s.find_first_not_of(kBlanks);
  if (begin == std::string_view::npos) return {};
  return s.substr(begin, s.find_last_not_of(kBlanks) - begin + 1);
}

std::string Lower(std::string_view s) {
  std::string out(s);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return out;
}

std::optional<int64_t> IntFromDouble(double v) {
  constexpr double kLimit = 9223372036854775808.0;  // 2^63
  if (!std::isfinite(v) || v != std::trunc(v) || v < -kLimit || v >= kLimit) return std::nullopt;
  return static_cast<int64_t>(v);
}

std::optional<int64_t> IntFromText(std::string_view text) {
  text = Trim(text);
  if (!text.empty() && text.front() == '+') text.remove_prefix(1);
  if (const size_t dot = text.find('.'); dot != std::string_view::npos) {
    const std::string_view fraction = text.substr(dot + 1);
    if (fraction.empty() || fraction.find_first_not_of('0') != std::string_view::npos) {
      return std::nullopt;
    }
    text = text.substr(0, dot);
  }
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::optional<double> DoubleFromText(std::string_view text) {
  text = Trim(text);
  if (!text.empty() && text.front() == '+') text.remove_prefix(1);
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::optional<bool> BoolFromText(const std::string& text) {
  const std::string lower = Lower(text);
  for (const char* word : {"true", "yes", "on", "t", "y", "1"}) {
    if (lower == word) return true;
  }
  for (const char* word : {"false", "no", "off", "f", "n", "0"}) {
    if (lower == word) return false;
  }
  return std::nullopt;
}

std::string Shown(const json::Value& value) {
  std::string text = value.Dump();
  if (text.size() <= kMaxShownBytes) return text;
  size_t cut = kMaxShownBytes;
  while (cut > 0 && (static_cast<unsigned char>(text[cut]) & 0xC0) == 0x80) --cut;
  return text.substr(0, cut) + "…";
}

}  // namespace

std::optional<int64_t> CoerceInt(const json::Value& value) {
  if (value.is_bool()) return value.AsBool() ? 1 : 0;
  if (value.is_int()) {
    const auto as_signed = value.AsInt();
    if (as_signed < 0 || value.AsUint() <= uint64_t{std::numeric_limits<int64_t>::max()}) {
      return as_signed;
    }
    return std::nullopt;
  }
  if (value.is_double()) return IntFromDouble(value.AsDouble());
  if (value.is_string()) return IntFromText(value.AsString());
  return std::nullopt;
}

std::optional<double> CoerceDouble(const json::Value& value) {
  if (value.is_bool()) return value.AsBool() ? 1.0 : 0.0;
  if (value.is_number()) return value.AsDouble();
  if (value.is_string()) return DoubleFromText(value.AsString());
  return std::nullopt;
}

std::optional<bool> CoerceBool(const json::Value& value) {
  if (value.is_bool()) return value.AsBool();
  if (value.is_number()) {
    const double number = value.AsDouble();
    if (number == 0.0 || number == 1.0) return number == 1.0;
    return std::nullopt;
  }
  if (value.is_string()) return BoolFromText(value.AsString());
  return std::nullopt;
}

ApiError SchemaError(std::string_view location, std::string_view message) {
  std::string text = "1 validation error:\n  ";
  text.append(location).append(": ").append(message);
  return {400, "Bad Request", std::move(text), std::string(location)};
}

FieldReader::FieldReader(const json::Value& object, std::string location)
    : object_(object), location_(std::move(location)) {
  if (!object_.is_object()) Fail("", "a valid dictionary", object_);
}

std::string FieldReader::Location(std::string_view key) const {
  return key.empty() ? location_ : location_ + "." + std::string(key);
}

void FieldReader::Fail(std::string_view key, std::string_view expected, const json::Value& got) {
  failures_.push_back(
      {Location(key), "Input should be " + std::string(expected) + ", got " + Shown(got)});
}

void FieldReader::Missing(std::string_view key) {
  failures_.push_back({Location(key), "Field required"});
}

const json::Value* FieldReader::Present(std::string_view key) const {
  const json::Value* value = Find(key);
  return value == nullptr || value->is_null() ? nullptr : value;
}

void FieldReader::Read(std::string_view key, int64_t* target) {
  const json::Value* value = Find(key);
  if (value == nullptr) return;
  if (const auto number = CoerceInt(*value)) {
    *target = *number;
  } else {
    Fail(key, "a valid integer", *value);
  }
}

void FieldReader::Read(std::string_view key, int* target) {
  int64_t wide = *target;
  Read(key, &wide);
  if (wide < std::numeric_limits<int>::min() || wide > std::numeric_limits<int>::max()) {
    Fail(key, "an integer of 32 bits", *Find(key));
    return;
  }
  *target = static_cast<int>(wide);
}

void FieldReader::Read(std::string_view key, double* target) {
  const json::Value* value = Find(key);
  if (value == nullptr) return;
  if (const auto number = CoerceDouble(*value)) {
    *target = *number;
  } else {
    Fail(key, "a valid number", *value);
  }
}

void FieldReader::Read(std::string_view key, bool* target) {
  const json::Value* value = Find(key);
  if (value == nullptr) return;
  if (const auto flag = CoerceBool(*value)) {
    *target = *flag;
  } else {
    Fail(key, "a valid boolean", *value);
  }
}

void FieldReader::Read(std::string_view key, std::string* target) {
  const json::Value* value = Find(key);
  if (value == nullptr) return;
  if (value->is_string()) {
    *target = value->AsString();
  } else {
    Fail(key, "a valid string", *value);
  }
}

namespace {
template <typename T>
void ReadOptional(FieldReader& reader, std::string_view key, std::optional<T>* target) {
  if (reader.Find(key) == nullptr) return;
  target->reset();
  if (reader.Present(key) == nullptr) return;
  T value{};
  reader.Read(key, &value);
  *target = std::move(value);
}
}  // namespace

void FieldReader::Read(std::string_view key, std::optional<int64_t>* target) {
  ReadOptional(*this, key, target);
}
void FieldReader::Read(std::string_view key, std::optional<int>* target) {
  ReadOptional(*this, key, target);
}
void FieldReader::Read(std::string_view key, std::optional<double>* target) {
  ReadOptional(*this, key, target);
}
void FieldReader::Read(std::string_view key, std::optional<bool>* target) {
  ReadOptional(*this, key, target);
}
void FieldReader::Read(std::string_view key, std::optional<std::string>* target) {
  ReadOptional(*this, key, target);
}

void FieldReader::ReadIntList(std::string_view key, std::vector<int32_t>* target) {
  const json::Value* value = Present(key);
  if (value == nullptr) return;
  if (!value->is_array()) return Fail(key, "a valid list", *value);
  target->clear();
  for (const json::Value& item : value->AsArray()) {
    const auto number = CoerceInt(item);
    if (!number || *number < std::numeric_limits<int32_t>::min() ||
        *number > std::numeric_limits<int32_t>::max()) {
      return Fail(key, "a list of valid integers", item);
    }
    target->push_back(static_cast<int32_t>(*number));
  }
}

void FieldReader::ReadStringList(std::string_view key, std::vector<std::string>* target) {
  const json::Value* value = Present(key);
  if (value == nullptr) return;
  if (!value->is_array()) return Fail(key, "a valid list", *value);
  target->clear();
  for (const json::Value& item : value->AsArray()) {
    if (!item.is_string()) return Fail(key, "a list of valid strings", item);
    target->push_back(item.AsString());
  }
}

MaybeError FieldReader::Error() const {
  if (failures_.empty()) return std::nullopt;
  ApiError error{400, "Bad Request", "", failures_.front().location};
  error.message = std::to_string(failures_.size()) +
                  (failures_.size() == 1 ? " validation error:" : " validation errors:");
  for (const Failure& failure : failures_) {
    error.message.append("\n  ").append(failure.location).append(": ").append(failure.message);
  }
  return error;
}

}  // namespace llmd::openai
