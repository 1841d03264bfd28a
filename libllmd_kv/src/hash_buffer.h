// Bytes on their way into a hash: on the stack, on the heap only for blocks far above the usual
// sizes.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

namespace llmd::kv {

// Thread-compatible.
class HashBuffer {
 public:
  HashBuffer() = default;
  HashBuffer(const HashBuffer&) = delete;
  HashBuffer& operator=(const HashBuffer&) = delete;
  std::span<const uint8_t> bytes() const { return {data_, size_}; }
  void Byte(uint8_t b) {
    Reserve(1);
    data_[size_++] = b;
  }
  void Append(const void* from, size_t count) {
    Reserve(count);
    if (count != 0) std::memcpy(data_ + size_, from, count);
    size_ += count;
  }

 protected:
  void Reserve(size_t more) {
    if (size_ + more <= capacity_) return;
    std::vector<uint8_t> bigger((size_ + more) * 2);
    std::memcpy(bigger.data(), data_, size_);
    spill_ = std::move(bigger);
    data_ = spill_.data();
    capacity_ = spill_.size();
  }

 private:
  std::array<uint8_t, 2048> stack_;
  std::vector<uint8_t> spill_;

 protected:
  uint8_t* data_ = stack_.data();
  size_t size_ = 0, capacity_ = sizeof(stack_);
};

}  // namespace llmd::kv
