#include "http/relay/buffers.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <new>

namespace llmd::relay {

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
  for (auto& list : free_) {
    for (char* block : list) std::free(block);
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
  free_[power - kSmallest].push_back(block);
  kept_bytes_ += bytes;
}

}  // namespace llmd::relay
