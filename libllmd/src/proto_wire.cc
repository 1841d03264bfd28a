#include "llmd/proto_wire.h"

#include <algorithm>

namespace llmd {
namespace {

constexpr size_t kMaxVarint = 10;

// What a tag says; false for groups, unknown types and field 0.
bool ReadTag(uint64_t tag, uint32_t* field, WireType* type) {
  *field = static_cast<uint32_t>(tag >> 3);
  *type = static_cast<WireType>(tag & 7);
  const bool known = *type == WireType::kVarint || *type == WireType::kFixed64 ||
                     *type == WireType::kBytes || *type == WireType::kFixed32;
  return known && *field != 0 && tag <= UINT32_MAX;
}

size_t FixedSize(WireType type) {
  return type == WireType::kFixed64 ? 8 : 4;
}

}  // namespace

bool WireFields::Varint(uint64_t* out) {
  uint64_t value = 0;
  const std::string_view rest = text_.substr(at_, kMaxVarint);
  for (size_t i = 0; i < rest.size(); ++i) {
    const auto byte = static_cast<uint8_t>(rest[i]);
    value |= uint64_t{byte & 0x7fu} << (7 * i);
    if (byte >= 0x80) continue;
    *out = value;
    at_ += i + 1;
    return true;
  }
  return Fail();
}

bool WireFields::Next() {
  if (at_ == text_.size() || !ok_) return false;
  uint64_t tag = 0;
  if (!Varint(&tag) || !ReadTag(tag, &field_, &type_)) return Fail();
  if (type_ == WireType::kVarint) return Varint(&number_);
  uint64_t size = FixedSize(type_);
  const size_t begin = at_;
  if (type_ == WireType::kBytes && !Varint(&size)) return false;
  if (size > text_.size() - at_) return Fail();
  length_ = {begin, at_};
  bytes_ = text_.substr(at_, size);
  at_ += size;
  return true;
}

PieceFields::PieceFields(std::span<const std::string_view> pieces) : pieces_(pieces) {
  for (std::string_view piece : pieces) end_ += piece.size();
}

bool PieceFields::Byte(uint8_t* out) {
  if (Available() == 0) return Fail();
  *out = static_cast<uint8_t>(Advance(1)[0]);
  return true;
}

// At most `n` bytes, as many as lie together. There is at least one.
std::string_view PieceFields::Advance(size_t n) {
  while (offset_ == pieces_[piece_].size()) {
    ++piece_;
    offset_ = 0;
  }
  const std::string_view part = pieces_[piece_].substr(offset_, n);
  offset_ += part.size();
  at_ += part.size();
  return part;
}

void PieceFields::Skip(size_t n) {
  while (n > 0) n -= Advance(n).size();
}

bool PieceFields::Varint(uint64_t* out) {
  uint64_t value = 0;
  for (size_t i = 0; i < kMaxVarint; ++i) {
    uint8_t byte = 0;
    if (!Byte(&byte)) return false;
    value |= uint64_t{byte & 0x7fu} << (7 * i);
    if (byte >= 0x80) continue;
    *out = value;
    return true;
  }
  return Fail();
}

bool PieceFields::Next() {
  if (!ok_) return false;
  Skip(left_);
  left_ = 0;
  if (Available() == 0) return false;
  uint64_t tag = 0;
  if (!Varint(&tag)) return false;
  if (!ReadTag(tag, &field_, &type_)) return Fail();
  if (type_ == WireType::kVarint) return Varint(&number_);
  uint64_t size = FixedSize(type_);
  if (type_ == WireType::kBytes && !Varint(&size)) return false;
  if (size > Available()) return Fail();
  left_ = size;
  return true;
}

std::string_view PieceFields::TakePart() {
  if (left_ == 0) return {};
  const std::string_view part = Advance(left_);
  left_ -= part.size();
  return part;
}

std::string_view PieceFields::TakeAll(std::string& scratch) {
  std::string_view first = TakePart();
  if (left_ == 0) return first;
  scratch = first;
  while (left_ > 0) scratch += TakePart();
  return scratch;
}

void PieceFields::Enter() {
  outer_end_ = end_;
  end_ = at_ + left_;
  left_ = 0;
}

void PieceFields::Leave() {
  if (ok_) Skip(Available());
  left_ = 0;
  end_ = outer_end_;
}

std::string ToVarint(uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  return out + static_cast<char>(value);
}

}  // namespace llmd
