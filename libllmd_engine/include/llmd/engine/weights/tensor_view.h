// A tensor as it lies in a weight file: element type, shape and its bytes, and how those bytes
// become float32. Block layouts are GGML's: 32 elements a block, float16 scales. Thread-safe:
// everything is read only.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "llmd/status.h"

namespace llmd::engine {

enum class TensorType : uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ8_0 = 8,
  kBF16 = 30
};

std::string_view TensorTypeName(TensorType type);  // "Q4_1"
// False for the types this build cannot read.
bool TensorTypeKnown(uint32_t type);
// Bytes of one block and elements in it (1 for the unblocked types).
size_t BlockBytes(TensorType type);
int BlockElements(TensorType type);

// Borrowed from the file. A matrix is row-major [rows, cols]; a row is the weights of one output.
struct TensorView {
  std::string_view name;
  TensorType type = TensorType::kF32;
  int rank = 0;
  std::array<int64_t, 4> dims{1, 1, 1, 1};  // dims[0] is contiguous
  std::span<const std::byte> data;

  int64_t cols() const { return dims[0]; }
  int64_t rows() const { return dims[1] * dims[2] * dims[3]; }
  size_t row_bytes() const {
    return static_cast<size_t>(cols()) / BlockElements(type) * BlockBytes(type);
  }
  std::span<const std::byte> row(int64_t index) const {
    return data.subspan(index * row_bytes(), row_bytes());
  }
};

float HalfToFloat(uint16_t bits);
uint16_t FloatToHalf(float value);  // to nearest even
inline float BFloat16ToFloat(uint16_t bits) {
  union {
    uint32_t u;
    float f;
  } both{static_cast<uint32_t>(bits) << 16};
  return both.f;
}
uint16_t FloatToBFloat16(float value);  // to nearest even

// Writes row `index` as float32; out.size() must be cols().
void DequantizeRow(const TensorView& tensor, int64_t index, std::span<float> out);

}  // namespace llmd::engine
