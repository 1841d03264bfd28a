// Memory for bytes on their way, taken from a loop's own free lists and given back as soon as a
// connection idles. Loop thread only.
#pragma once

#include <array>
#include <cstddef>
#include <cstring>
#include <string_view>
#include <utility>
#include <vector>

namespace llmd::relay {

class BufferPool;

// Bytes [begin, end) of a block. Movable; gives its block back when it ends.
class Buffer {
 public:
  Buffer() = default;
  Buffer(Buffer&& other) noexcept { *this = std::move(other); }
  Buffer& operator=(Buffer&& other) noexcept;
  ~Buffer() { Free(); }

  bool has_block() const { return data_ != nullptr; }
  std::string_view view() const { return {data_ + begin_, end_ - begin_}; }
  size_t size() const { return end_ - begin_; }
  bool empty() const { return begin_ == end_; }
  size_t capacity() const { return capacity_; }
  char* room() { return data_ + end_; }
  size_t room_bytes() const { return capacity_ - end_; }
  void Added(size_t bytes) { end_ += bytes; }
  void Consume(size_t bytes);
  void Append(BufferPool& pool, std::string_view bytes);
  // Room for `bytes` more behind the end; moves the content where it must.
  void Reserve(BufferPool& pool, size_t bytes);
  void Free();

 private:
  friend class BufferPool;
  BufferPool* pool_ = nullptr;
  char* data_ = nullptr;
  size_t capacity_ = 0, begin_ = 0, end_ = 0;
};

// Blocks of powers of two. Outlives its buffers.
class BufferPool {
 public:
  BufferPool() = default;
  ~BufferPool();
  BufferPool(const BufferPool&) = delete;
  BufferPool& operator=(const BufferPool&) = delete;
  // Of at least `bytes`.
  Buffer Take(size_t bytes);
  size_t kept_bytes() const { return kept_bytes_; }

 private:
  friend class Buffer;
  static constexpr size_t kSmallest = 12, kLargest = 22;  // 4 KiB … 4 MiB; above: not kept
  static constexpr size_t kMaxKeptBytes = 8 << 20;
  void Give(char* block, size_t bytes);

  std::array<std::vector<char*>, kLargest - kSmallest + 1> free_;
  size_t kept_bytes_ = 0;
};

}  // namespace llmd::relay
