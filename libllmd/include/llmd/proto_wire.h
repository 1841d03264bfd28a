// Reads protocol buffer messages in their wire format, in place and without a schema
// (protobuf.dev/programming-guides/encoding). Two walks over a message's fields: WireFields where
// its bytes lie together, PieceFields where they came in pieces. A cut field, field number 0,
// groups and wire types that do not exist are malformed. Thread-compatible.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "llmd/json.h"

namespace llmd {

enum class WireType : uint8_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

class WireFields {
 public:
  explicit WireFields(std::string_view message) : text_(message) {}
  // The next field; false at the end and for malformed input (then !ok()).
  bool Next();
  bool ok() const { return ok_; }

  uint32_t field() const { return field_; }
  WireType type() const { return type_; }
  uint64_t number() const { return number_; }        // of kVarint
  std::string_view bytes() const { return bytes_; }  // of the others
  json::Span length() const { return length_; }      // of kBytes: where it stands in the message
  // Whether this is `field` with bytes.
  bool Is(uint32_t field) const { return field_ == field && type_ == WireType::kBytes; }
  bool IsNumber(uint32_t field) const { return field_ == field && type_ == WireType::kVarint; }
  // `each` gets every number of a packed field of varints; false from the first malformed one on.
  template <typename Each>
  static bool Packed(std::string_view bytes, Each each) {
    WireFields numbers(bytes);
    for (uint64_t value = 0; numbers.at_ < bytes.size();) {
      if (!numbers.Varint(&value)) return false;
      each(value);
    }
    return true;
  }

 private:
  bool Varint(uint64_t* out);
  bool Fail() { return ok_ = false; }

  const std::string_view text_;
  size_t at_ = 0;
  std::string_view bytes_;
  json::Span length_;
  uint64_t number_ = 0;
  uint32_t field_ = 0;
  WireType type_ = WireType::kVarint;
  bool ok_ = true;
};

// The same over pieces; values are taken by the caller.
class PieceFields {
 public:
  explicit PieceFields(std::span<const std::string_view> pieces);
  // As WireFields::Next. What was left of the field before is skipped.
  bool Next();
  bool ok() const { return ok_; }
  uint32_t field() const { return field_; }
  WireType type() const { return type_; }
  uint64_t number() const { return number_; }
  size_t left() const { return left_; }  // bytes of this field's value not yet taken

  // The rest of the value in one view: in place where it lies together, else in `scratch`.
  std::string_view TakeAll(std::string& scratch);
  // The next part of the value as it lies; empty at its end.
  std::string_view TakePart();
  // Walks into the value: until Leave, Next gives its fields.
  void Enter();
  void Leave();

 private:
  size_t Available() const { return end_ - at_; }
  bool Varint(uint64_t* out);
  bool Byte(uint8_t* out);
  std::string_view Advance(size_t n);
  void Skip(size_t n);
  bool Fail() { return ok_ = false; }

  std::span<const std::string_view> pieces_;
  size_t piece_ = 0, offset_ = 0;  // where the next byte is
  size_t at_ = 0, end_ = 0;        // in the message as a whole; end of what is walked
  size_t outer_end_ = 0;
  size_t left_ = 0;
  uint64_t number_ = 0;
  uint32_t field_ = 0;
  WireType type_ = WireType::kVarint;
  bool ok_ = true;
};

// The base-128 form of `value`, as in a length.
std::string ToVarint(uint64_t value);

}  // namespace llmd
