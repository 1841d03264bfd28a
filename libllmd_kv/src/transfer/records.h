// Tagged fields inside a payload: u16 field, u16 zero, u32 length, bytes; little-endian.
// Thread-compatible.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "llmd/status.h"

namespace llmd::kv::wire {

template <typename T>
void PutLe(std::string& out, T value) {
  using U = std::make_unsigned_t<T>;
  const U bits = static_cast<U>(value);
  for (size_t i = 0; i < sizeof(T); ++i)
    out += static_cast<char>(static_cast<uint64_t>(bits) >> (8 * i));
}

template <typename T>
T GetLe(const void* from) {
  const auto* bytes = static_cast<const uint8_t*>(from);
  uint64_t bits = 0;
  for (size_t i = 0; i < sizeof(T); ++i) bits |= uint64_t{bytes[i]} << (8 * i);
  return static_cast<T>(bits);
}

class RecordWriter {
 public:
  void Text(uint16_t field, std::string_view value) {
    Head(field, value.size());
    out_ += value;
  }
  template <typename T>
  void Number(uint16_t field, T value) {
    Head(field, sizeof(T));
    PutLe(out_, value);
  }
  template <typename T>
  void Numbers(uint16_t field, const std::vector<T>& values) {
    Head(field, values.size() * sizeof(T));
    for (T value : values) PutLe(out_, value);
  }
  std::string Take() { return std::move(out_); }

 private:
  void Head(uint16_t field, size_t length) {
    PutLe(out_, field);
    PutLe(out_, uint16_t{0});
    PutLe(out_, static_cast<uint32_t>(length));
  }
  std::string out_;
};

// Finds fields by id. Parse checks the framing of all fields once; the typed reads check presence
// and size.
class RecordReader {
 public:
  static StatusOr<RecordReader> Parse(std::string_view record, std::string_view payload);

  Status Text(uint16_t field, std::string_view name, std::string* out) const;
  template <typename T>
  Status Number(uint16_t field, std::string_view name, T* out) const {
    LLMD_ASSIGN_OR_RETURN(std::string_view bytes, Find(field, name));
    if (bytes.size() != sizeof(T)) return WrongSize(name, bytes.size());
    *out = GetLe<T>(bytes.data());
    return OkStatus();
  }
  template <typename T>
  Status Numbers(uint16_t field, std::string_view name, size_t max_count,
                 std::vector<T>* out) const {
    LLMD_ASSIGN_OR_RETURN(std::string_view bytes, Find(field, name));
    if (bytes.size() % sizeof(T) != 0 || bytes.size() / sizeof(T) > max_count)
      return WrongSize(name, bytes.size());
    out->resize(bytes.size() / sizeof(T));
    for (size_t i = 0; i < out->size(); ++i) (*out)[i] = GetLe<T>(bytes.data() + i * sizeof(T));
    return OkStatus();
  }

 private:
  struct Field {
    uint16_t id;
    std::string_view bytes;
  };
  StatusOr<std::string_view> Find(uint16_t field, std::string_view name) const;
  Status WrongSize(std::string_view name, size_t size) const;

  std::string record_;
  std::vector<Field> fields_;
};

}  // namespace llmd::kv::wire
