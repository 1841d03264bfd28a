// Canonical CBOR (RFC 8949 §4.2.1), the few types that block hashes need.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

#include "hash_buffer.h"

namespace llmd::kv {

// Thread-compatible.
class CborWriter : private HashBuffer {
 public:
  using HashBuffer::bytes;

  void Unsigned(uint64_t v) { Head(0, v); }
  void Integer(int64_t v) {
    v >= 0 ? Head(0, static_cast<uint64_t>(v)) : Head(1, static_cast<uint64_t>(-(v + 1)));
  }
  void Bytes(std::span<const uint8_t> v) { Payload(2, v.data(), v.size()); }
  void Text(std::string_view v) { Payload(3, v.data(), v.size()); }
  void Array(uint64_t count) { Head(4, count); }
  void Map(uint64_t count) { Head(5, count); }
  // An array of integers, with room for all of it made once.
  template <typename T>
  void Numbers(std::span<const T> values) {
    Array(values.size());
    Reserve(values.size() * kMaxHead);
    uint8_t* at = data_ + size_;
    for (T value : values) {
      const bool negative = value < 0;
      at = Put(
          at, negative ? 1 : 0,
          negative ? static_cast<uint64_t>(-(int64_t{value} + 1)) : static_cast<uint64_t>(value));
    }
    size_ = static_cast<size_t>(at - data_);
  }
  void Null() { Byte(0xf6); }

 private:
  static constexpr size_t kMaxHead = 9;

  void Head(uint8_t major, uint64_t v) {
    Reserve(kMaxHead);
    size_ = static_cast<size_t>(Put(data_ + size_, major, v) - data_);
  }
  static uint8_t* Put(uint8_t* at, uint8_t major, uint64_t v) {
    const uint8_t type = static_cast<uint8_t>(major << 5);
    if (v < 24) {
      *at++ = static_cast<uint8_t>(type | v);
      return at;
    }
    if (v <= 0xff) return BigEndian<1>(at, type | 24, v);
    if (v <= 0xffff) return BigEndian<2>(at, type | 25, v);
    if (v <= 0xffffffff) return BigEndian<4>(at, type | 26, v);
    return BigEndian<8>(at, type | 27, v);
  }
  template <int kWidth>
  static uint8_t* BigEndian(uint8_t* at, int head, uint64_t v) {
    *at++ = static_cast<uint8_t>(head);
    for (int i = kWidth - 1; i >= 0; --i) *at++ = static_cast<uint8_t>(v >> (8 * i));
    return at;
  }
  void Payload(uint8_t major, const void* from, size_t count) {
    Head(major, count);
    Append(from, count);
  }
};

}  // namespace llmd::kv
