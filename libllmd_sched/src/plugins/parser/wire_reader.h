// Reads protocol buffer messages in their wire format, without a schema or a copy
// (protobuf.dev/programming-guides/encoding).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "llmd/json.h"

namespace llmd::sched {

// One field of a message.
struct WireField {
  uint32_t number = 0;
  int wire_type = 0;       // 0 varint, 1 64 bits, 2 length-delimited, 5 32 bits
  uint64_t value = 0;      // of a number
  std::string_view bytes;  // of a length-delimited field
  json::Span length;       // where its length stands in the message
};

// Walks the fields of one message. Thread-compatible.
class WireReader {
 public:
  explicit WireReader(std::string_view message) : text_(message) {}
  // The next field; false at the end and at the first byte that is no message.
  bool Next(WireField* field);
  // False once something malformed was met: a cut field, a group, field number 0.
  bool ok() const { return ok_; }
  // Appends nothing unless the whole packed field is well formed: `each` gets every varint.
  template <typename Each>
  static bool Packed(std::string_view bytes, Each each) {
    WireReader reader(bytes);
    for (uint64_t value = 0; reader.at_ < bytes.size();) {
      if (!reader.Varint(&value)) return false;
      each(value);
    }
    return true;
  }

 private:
  bool Varint(uint64_t* value);
  bool Fixed(int width, uint64_t* value);
  bool Fail() { return ok_ = false; }
  const std::string_view text_;
  size_t at_ = 0;
  bool ok_ = true;
};

// The base-128 form of `value`, as in a length.
std::string ToVarint(uint64_t value);

}  // namespace llmd::sched
