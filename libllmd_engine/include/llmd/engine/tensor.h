// Memory of a backend and views of it. A Buffer owns bytes in one memory space; a Tensor is a
// borrowed 2-D view of one. Only the backend that made a buffer may read it, unless its kind is
// kHost or kPinned.
#pragma once

#include <cstddef>
#include <cstdint>

namespace llmd::engine {

enum class MemoryKind {
  kHost,    // pageable memory of the process
  kPinned,  // of the process, reachable by the device
  kDevice,  // reachable by the device only
};

enum class ElementType { kF32, kBF16, kI32, kI64 };

constexpr size_t ElementBytes(ElementType type) {
  return type == ElementType::kI64 ? 8 : type == ElementType::kBF16 ? 2 : 4;
}

// Freed when destroyed; must not outlive its backend.
class Buffer {
 public:
  virtual ~Buffer() = default;
  virtual MemoryKind kind() const = 0;
  virtual size_t size_bytes() const = 0;
  // An address in the buffer's own memory space.
  virtual std::byte* address() const = 0;
};

// [rows, cols] elements, rows `stride` elements apart, from `offset_bytes` of `buffer`.
struct Tensor {
  Buffer* buffer = nullptr;
  size_t offset_bytes = 0;
  ElementType type = ElementType::kF32;
  int64_t rows = 0, cols = 0, stride = 0;

  Tensor() = default;
  Tensor(Buffer& b, ElementType t, int64_t r, int64_t c, size_t offset = 0)
      : buffer(&b), offset_bytes(offset), type(t), rows(r), cols(c), stride(c) {}

  Tensor Rows(int64_t first, int64_t count) const {
    Tensor view = *this;
    view.offset_bytes += static_cast<size_t>(first * stride) * ElementBytes(type);
    view.rows = count;
    return view;
  }
  Tensor Columns(int64_t first, int64_t count) const {
    Tensor view = *this;
    view.offset_bytes += static_cast<size_t>(first) * ElementBytes(type);
    view.cols = count;
    return view;
  }
};

}  // namespace llmd::engine
