#include "plugins/parser/wire_reader.h"

namespace llmd::sched {

bool WireReader::Next(WireField* field) {
  if (!ok_ || at_ == text_.size()) return false;
  uint64_t tag = 0;
  if (!Varint(&tag) || tag >> 3 == 0 || tag >> 3 > 0x1fffffff) return Fail();
  field->number = static_cast<uint32_t>(tag >> 3);
  field->wire_type = static_cast<int>(tag & 7);
  field->value = 0;
  field->bytes = {};
  switch (field->wire_type) {
    case 0:
      return Varint(&field->value) || Fail();
    case 1:
      return Fixed(8, &field->value) || Fail();
    case 5:
      return Fixed(4, &field->value) || Fail();
    case 2:
      break;
    default:  // groups have left the language long ago
      return Fail();
  }
  uint64_t size = 0;
  const size_t begin = at_;
  if (!Varint(&size) || size > text_.size() - at_) return Fail();
  field->length = {begin, at_};
  field->bytes = text_.substr(at_, size);
  at_ += size;
  return true;
}

bool WireReader::Varint(uint64_t* value) {
  *value = 0;
  for (int shift = 0; shift < 70 && at_ < text_.size(); shift += 7) {
    const auto byte = static_cast<unsigned char>(text_[at_++]);
    if (shift < 64) *value |= static_cast<uint64_t>(byte & 0x7f) << shift;
    if (byte < 0x80) return true;
  }
  return Fail();
}

bool WireReader::Fixed(int width, uint64_t* value) {
  if (text_.size() - at_ < static_cast<size_t>(width)) return Fail();
  for (int i = 0; i < width; ++i)
    *value |= static_cast<uint64_t>(static_cast<unsigned char>(text_[at_++])) << (8 * i);
  return true;
}

std::string ToVarint(uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  return out + static_cast<char>(value);
}

}  // namespace llmd::sched
