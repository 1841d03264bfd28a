// Writes one protobuf message back to front, so that the length of whatever is nested is known when
// its header is written. Repeated fields are therefore added last one first. The last bytes of the
// message may stay where they are (Tail): they are sent behind View(). Thread-compatible.
#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

namespace llmd::services {

class WireWriter {
 public:
  WireWriter() : buffer_(512), at_(buffer_.size()) {}
  // For the next message; keeps the memory.
  void Reset() {
    at_ = buffer_.size();
    tail_ = 0;
  }

  // Bytes of the message so far, the tail's included.
  size_t size() const { return buffer_.size() - at_ + tail_; }
  // The message less the tail.
  std::string_view View() const { return {buffer_.data() + at_, buffer_.size() - at_}; }

  // First of all: the message ends with `bytes` that are not copied here.
  void Tail(size_t bytes) { tail_ = bytes; }
  void Raw(std::string_view bytes) {
    if (!bytes.empty()) std::memcpy(Room(bytes.size()), bytes.data(), bytes.size());
  }
  void Bytes(uint32_t field, std::string_view bytes) {
    Raw(bytes);
    Head(field, bytes.size());
  }
  // The same with A–Z in lower case.
  void Lower(uint32_t field, std::string_view bytes) {
    Raw(bytes);
    for (char* c = buffer_.data() + at_; c != buffer_.data() + at_ + bytes.size(); ++c)
      *c = *c >= 'A' && *c <= 'Z' ? static_cast<char>(*c + 32) : *c;
    Head(field, bytes.size());
  }
  // Everything since size() was `mark` becomes the value of `field`.
  void Wrap(uint32_t field, size_t mark) { Head(field, size() - mark); }
  void Number(uint32_t field, uint64_t value) {
    Varint(value);
    Varint(uint64_t{field} << 3);
  }
  void Double(uint32_t field, double value) {
    std::memcpy(Room(sizeof value), &value, sizeof value);  // little-endian, as the wire
    Varint(uint64_t{field} << 3 | 1);
  }

 private:
  void Head(uint32_t field, size_t length) {
    Varint(length);
    Varint(uint64_t{field} << 3 | 2);
  }
  void Varint(uint64_t value) {
    char bytes[10];
    size_t n = 0;
    for (; value >= 0x80; value >>= 7) bytes[n++] = static_cast<char>(value | 0x80);
    bytes[n++] = static_cast<char>(value);
    std::memcpy(Room(n), bytes, n);
  }
  char* Room(size_t n) {
    if (n > at_) Grow(n);
    at_ -= n;
    return buffer_.data() + at_;
  }
  void Grow(size_t n) {
    const size_t used = buffer_.size() - at_;
    std::vector<char> bigger((used + n) * 2);
    std::memcpy(bigger.data() + bigger.size() - used, buffer_.data() + at_, used);
    buffer_ = std::move(bigger);
    at_ = buffer_.size() - used;
  }

  std::vector<char> buffer_;  // the message grows from its end
  size_t at_, tail_ = 0;
};

}  // namespace llmd::services
