// Lax input coercion as pydantic v2 does it for vLLM: integers from "1", " 1 ", "1.0", 1.0 and
// true; floats from numeric strings; booleans from "yes", "off", 0, 1; strings strictly.
// FieldReader applies it to the members of one object and collects every failure, so that a client
// sees them all at once. Thread-compatible.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "llmd/json.h"
#include "llmd/openai/error.h"

namespace llmd::openai {

// Nothing when the value is not acceptable for the type.
std::optional<int64_t> CoerceInt(const json::Value& value);
std::optional<double> CoerceDouble(const json::Value& value);
std::optional<bool> CoerceBool(const json::Value& value);

class FieldReader {
 public:
  // `object` must outlive the reader. `location` names it in errors, "body".
  FieldReader(const json::Value& object, std::string location);

  // Absent members leave the target as it is. Null is an error for plain targets and "unset" for
  // optional ones.
  void Read(std::string_view key, int64_t* target);
  void Read(std::string_view key, int* target);
  void Read(std::string_view key, double* target);
  void Read(std::string_view key, bool* target);
  void Read(std::string_view key, std::string* target);
  void Read(std::string_view key, std::optional<int64_t>* target);
  void Read(std::string_view key, std::optional<int>* target);
  void Read(std::string_view key, std::optional<double>* target);
  void Read(std::string_view key, std::optional<bool>* target);
  void Read(std::string_view key, std::optional<std::string>* target);
  // As Read, but null leaves the target as it is.
  template <typename T>
  void ReadOrDefault(std::string_view key, T* target) {
    const json::Value* value = Find(key);
    if (value != nullptr && !value->is_null()) Read(key, target);
  }
  // Null is the empty list.
  void ReadIntList(std::string_view key, std::vector<int32_t>* target);
  void ReadStringList(std::string_view key, std::vector<std::string>* target);

  // The member, or null pointer when it is absent or JSON null.
  const json::Value* Present(std::string_view key) const;
  const json::Value* Find(std::string_view key) const { return object_.Find(key); }
  // Records a schema failure of member `key` ("" = the object itself).
  void Fail(std::string_view key, std::string_view expected, const json::Value& got);
  void Missing(std::string_view key);

  // 400 "Bad Request" with all failures, or nothing.
  MaybeError Error() const;

 private:
  struct Failure {
    std::string location, message;
  };
  std::string Location(std::string_view key) const;
  const json::Value& object_;
  std::string location_;
  std::vector<Failure> failures_;
};

// One schema failure as the error object.
ApiError SchemaError(std::string_view location, std::string_view message);

}  // namespace llmd::openai
