// Python's pickle, protocol 5, the few types that vLLM's block hashes need, byte for byte as
// CPython's C pickler writes them below its frame size of 64 KiB. An object met again is written as
// a reference to the first: which objects are the same one is known here for the tags of extra keys
// only.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

#include "hash_buffer.h"

namespace llmd::kv {

// Thread-compatible.
class PickleWriter : private HashBuffer {
 public:
  PickleWriter() {
    static constexpr uint8_t kHead[kHeadBytes] = {0x80, 5, 0x95};
    Append(kHead, sizeof(kHead));
  }
  // Ends the pickle.
  std::span<const uint8_t> Finish() {
    Byte('.');
    const uint64_t frame = size_ - kHeadBytes;
    std::memcpy(data_ + 3, &frame, sizeof(frame));
    return bytes();
  }

  void None() { Byte('N'); }
  void Bytes(std::span<const uint8_t> v) {  // at most 255
    Byte('C');
    Byte(static_cast<uint8_t>(v.size()));
    Append(v.data(), v.size());
    Memoize();
  }
  // Returns the number under which Again writes the same object.
  uint32_t Text(std::string_view v) {
    if (v.size() < 256) {
      Byte(0x8c);
      Byte(static_cast<uint8_t>(v.size()));
    } else {
      const uint32_t size = static_cast<uint32_t>(v.size());
      Byte('X');
      Append(&size, sizeof(size));
    }
    Append(v.data(), v.size());
    return Memoize();
  }
  void Again(uint32_t object) {
    if (object < 256) {
      Byte('h');
      return Byte(static_cast<uint8_t>(object));
    }
    Byte('j');
    Append(&object, sizeof(object));
  }
  void Integer(int64_t v) {
    if (v >= 0 && v <= 0xff) {
      Byte('K');
      Append(&v, 1);
    } else if (v >= 0 && v <= 0xffff) {
      Byte('M');
      Append(&v, 2);
    } else if (v >= INT32_MIN && v <= INT32_MAX) {
      Byte('J');
      Append(&v, 4);
    } else {
      Long(v);
    }
  }
  // A tuple of `count`: Begin, its items, End.
  void BeginTuple(size_t count) {
    if (count > 3) Byte('(');
  }
  void EndTuple(size_t count) {
    static constexpr uint8_t kSmall[] = {')', 0x85, 0x86, 0x87};
    Byte(count > 3 ? 't' : kSmall[count]);
    if (count > 0) Memoize();
  }

 private:
  static constexpr size_t kHeadBytes = 11;
  uint32_t Memoize() {
    Byte(0x94);
    return objects_++;
  }
  // Two's complement in as few bytes as hold it.
  void Long(int64_t v) {
    uint8_t size = 5;
    while (size < 8 && (v >> (8 * size - 1)) != (v < 0 ? -1 : 0)) ++size;
    Byte(0x8a);
    Byte(size);
    Append(&v, size);
  }
  uint32_t objects_ = 0;
};

}  // namespace llmd::kv
