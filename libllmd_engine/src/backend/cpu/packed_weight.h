// A matrix in the tiles kernels.h describes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "backend/cpu/kernels.h"
#include "backend/cpu/thread_pool.h"
#include "llmd/engine/backend.h"

namespace llmd::engine::cpu {

// 64-byte aligned, zeroed by the kernel, in huge pages where the system gives them.
class HostBuffer final : public Buffer {
 public:
  static StatusOr<std::unique_ptr<HostBuffer>> Create(size_t size_bytes);
  // Someone else's memory.
  explicit HostBuffer(std::span<std::byte> borrowed)
      : address_(borrowed.data()), size_(borrowed.size()) {}
  ~HostBuffer() override;

  MemoryKind kind() const override { return MemoryKind::kHost; }
  size_t size_bytes() const override { return size_; }
  std::byte* address() const override { return address_; }

 private:
  HostBuffer() = default;

  std::byte* address_ = nullptr;
  size_t size_ = 0;
  size_t mapped_ = 0;
};

// Whether the packed matrix keeps its blocks of 4 or 8 bits: then it can be multiplied by
// fixed-point activations.
bool StaysQuantised(const WeightSpec& spec);

class PackedWeight final : public Weight {
 public:
  // Rows of different formats in one matrix take the widest of them.
  static StatusOr<std::unique_ptr<PackedWeight>> Create(const WeightSpec& spec,
                                                        Arithmetic arithmetic, bool dense_bf16,
                                                        ThreadPool& pool);

  int64_t rows() const override { return rows_; }
  int64_t cols() const override { return cols_; }
  size_t size_bytes() const override { return buffer_->size_bytes(); }

  Format format() const { return format_; }
  Arithmetic arithmetic() const { return arithmetic_; }
  int tiles() const { return static_cast<int>((rows_ + kTileColumns - 1) / kTileColumns); }
  int groups() const { return static_cast<int>((cols_ + kGroup - 1) / kGroup); }
  size_t tile_bytes() const { return groups() * GroupBytes(format_); }
  const uint8_t* tile(int index) const {
    return reinterpret_cast<const uint8_t*>(buffer_->address()) + index * tile_bytes();
  }
  // Row `row` as float32, out.size() = cols().
  void Unpack(int64_t row, std::span<float> out) const;

 private:
  PackedWeight() = default;
  void PackRow(const TensorView& tensor, int64_t from, int64_t to, std::span<float> scratch);
  void PackBlocks(const TensorView& tensor, int64_t from, uint8_t* tile, int col);
  void PackDense(std::span<const float> values, uint8_t* tile, int col);

  int64_t rows_ = 0, cols_ = 0;
  Format format_ = kFormatF32;
  Arithmetic arithmetic_ = kArithmeticF32;
  std::unique_ptr<HostBuffer> buffer_;
};

}  // namespace llmd::engine::cpu
