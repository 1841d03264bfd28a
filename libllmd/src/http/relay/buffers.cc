#include "http/relay/buffers.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <new>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define LLMD_RELAY_POISON 1
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define LLMD_RELAY_POISON 1
#endif
#ifdef LLMD_RELAY_POISON
#include <sanitizer/asan_interface.h>
#endif

namespace llmd::relay {
namespace {

// A block on a free list is as good as freed: AddressSanitizer shall say so.
void Poison([[maybe_unused]] char* block, [[maybe_unused]] size_t bytes) {
#ifdef LLMD_RELAY_POISON
  ASAN_POISON_MEMORY_REGION(block, bytes);
#endif
}

void Unpoison([[maybe_unused]] char* block, [[maybe_unused]] size_t bytes) {
#ifdef LLMD_RELAY_POISON
  ASAN_UNPOISON_MEMORY_REGION(block, bytes);
#endif
}

}  // namespace

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  if (this == &other) return *this;
  Free();
  pool_ = std::exchange(other.pool_, nullptr);
  data_ = std::exchange(other.data_, nullptr);
  capacity_ = std::exchange(other.capacity_, 0);
  begin_ = std::exchange(other.begin_, 0);
  end_ = std::exchange(other.end_, 0);
  return *this;
}

void Buffer::Free() {
  if (data_ != nullptr) pool_->Give(data_, capacity_);
  data_ = nullptr;
  capacity_ = begin_ = end_ = 0;
}

void Buffer::Consume(size_t bytes) {
  begin_ += std::min(bytes, size());
  if (begin_ == end_) begin_ = end_ = 0;
}

void Buffer::Reserve(BufferPool& pool, size_t bytes) {
  if (data_ != nullptr && room_bytes() >= bytes) return;
  if (data_ != nullptr && begin_ > 0 && capacity_ - size() >= bytes && begin_ >= size()) {
    std::memmove(data_, data_ + begin_, size());
    end_ -= begin_;
    begin_ = 0;
    return;
  }
  Buffer larger = pool.Take(std::max(size() + bytes, data_ != nullptr ? capacity_ * 2 : 0));
  if (!empty()) std::memcpy(larger.data_, data_ + begin_, size());
  larger.end_ = size();
  *this = std::move(larger);
}

void Buffer::Append(BufferPool& pool, std::string_view bytes) {
  if (bytes.empty()) return;
  Reserve(pool, bytes.size());
  std::memcpy(room(), bytes.data(), bytes.size());
  end_ += bytes.size();
}

BufferPool::~BufferPool() {
  for (size_t i = 0; i < free_.size(); ++i) {
    for (char* block : free_[i]) {
      Unpoison(block, size_t{1} << (kSmallest + i));
      std::free(block);
    }
  }
}

Buffer BufferPool::Take(size_t bytes) {
  const size_t rounded = std::bit_ceil(std::max<size_t>(bytes, size_t{1} << kSmallest));
  const auto power = static_cast<size_t>(std::countr_zero(rounded));
  Buffer out;
  out.pool_ = this;
  // Above the classes exactly what is asked for: a 70 MB upload need not hold 128.
  out.capacity_ = power > kLargest ? bytes : rounded;
  if (power <= kLargest && !free_[power - kSmallest].empty()) {
    out.data_ = free_[power - kSmallest].back();
    free_[power - kSmallest].pop_back();
    kept_bytes_ -= rounded;
    Unpoison(out.data_, rounded);
    return out;
  }
  out.data_ = static_cast<char*>(std::malloc(out.capacity_));
  if (out.data_ == nullptr) throw std::bad_alloc();
  return out;
}

void BufferPool::Give(char* block, size_t bytes) {
  const auto power = static_cast<size_t>(std::countr_zero(bytes));
  const bool classed = std::has_single_bit(bytes) && power >= kSmallest && power <= kLargest;
  if (!classed || kept_bytes_ + bytes > kMaxKeptBytes) return std::free(block);
  Poison(block, bytes);
  free_[power - kSmallest].push_back(block);
  kept_bytes_ += bytes;
}

}  // namespace llmd::relay
