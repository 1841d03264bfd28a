#include "llmd/engine/weights/tensor_view.h"

#include <bit>
#include <cstring>

namespace llmd::engine {
namespace {

uint16_t Load16(const std::byte* p) {
  uint16_t v;
  std::memcpy(&v, p, 2);
  return v;
}

void DequantizeNibbles(const std::byte* block, float d, float m, float* out) {
  for (int j = 0; j < 16; ++j) {
    auto q = static_cast<uint8_t>(block[j]);
    out[j] = static_cast<float>(q & 15) * d + m;
    out[j + 16] = static_cast<float>(q >> 4) * d + m;
  }
}

void DequantizeBlock(TensorType type, const std::byte* p, float* out) {
  switch (type) {
    case TensorType::kF32:
      std::memcpy(out, p, 4);
      return;
    case TensorType::kF16:
      *out = HalfToFloat(Load16(p));
      return;
    case TensorType::kBF16:
      *out = BFloat16ToFloat(Load16(p));
      return;
    case TensorType::kQ4_0: {
      float d = HalfToFloat(Load16(p));
      return DequantizeNibbles(p + 2, d, -8.0f * d, out);
    }
    case TensorType::kQ4_1:
      return DequantizeNibbles(p + 4, HalfToFloat(Load16(p)), HalfToFloat(Load16(p + 2)), out);
    case TensorType::kQ8_0: {
      float d = HalfToFloat(Load16(p));
      for (int j = 0; j < 32; ++j) out[j] = static_cast<float>(static_cast<int8_t>(p[2 + j])) * d;
      return;
    }
  }
}

}  // namespace

std::string_view TensorTypeName(TensorType type) {
  switch (type) {
    case TensorType::kF32:
      return "F32";
    case TensorType::kF16:
      return "F16";
    case TensorType::kQ4_0:
      return "Q4_0";
    case TensorType::kQ4_1:
      return "Q4_1";
    case TensorType::kQ8_0:
      return "Q8_0";
    case TensorType::kBF16:
      return "BF16";
  }
  return "unknown";
}

bool TensorTypeKnown(uint32_t type) {
  return TensorTypeName(static_cast<TensorType>(type)) != "unknown";
}

size_t BlockBytes(TensorType type) {
  switch (type) {
    case TensorType::kF32:
      return 4;
    case TensorType::kF16:
    case TensorType::kBF16:
      return 2;
    case TensorType::kQ4_0:
      return 18;
    case TensorType::kQ4_1:
      return 20;
    case TensorType::kQ8_0:
      return 34;
  }
  return 0;
}

int BlockElements(TensorType type) {
  return type == TensorType::kQ4_0 || type == TensorType::kQ4_1 || type == TensorType::kQ8_0 ? 32
                                                                                             : 1;
}

float HalfToFloat(uint16_t bits) {
  uint32_t sign = static_cast<uint32_t>(bits & 0x8000) << 16;
  uint32_t exponent = (bits >> 10) & 31, mantissa = bits & 0x3ff;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000 | mantissa << 13);
  if (exponent != 0) return std::bit_cast<float>(sign | (exponent + 112) << 23 | mantissa << 13);
  float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
  return sign ? -magnitude : magnitude;
}

uint16_t FloatToHalf(float value) {
  auto bits = std::bit_cast<uint32_t>(value);
  uint16_t sign = bits >> 16 & 0x8000;
  bits &= 0x7fffffff;
  if (bits > 0x7f800000) return sign | 0x7e00;
  if (bits >= 0x47800000) return sign | 0x7c00;
  if (bits < 0x38800000) {
    // Adding 0.5 leaves the subnormal's bits, rounded to nearest even, at the bottom of the
    // mantissa.
    float shifted = std::bit_cast<float>(bits) + 0.5f;
    return sign | static_cast<uint16_t>(std::bit_cast<uint32_t>(shifted) - 0x3f000000);
  }
  bits += 0xfff + (bits >> 13 & 1);
  return sign | static_cast<uint16_t>((bits - 0x38000000) >> 13);
}

uint16_t FloatToBFloat16(float value) {
  auto bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffff) > 0x7f800000) return static_cast<uint16_t>(bits >> 16 | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

void DequantizeRow(const TensorView& tensor, int64_t index, std::span<float> out) {
  const std::byte* p = tensor.row(index).data();
  size_t bytes = BlockBytes(tensor.type);
  int elements = BlockElements(tensor.type);
  for (size_t i = 0; i < out.size(); i += elements, p += bytes)
    DequantizeBlock(tensor.type, p, out.data() + i);
}

}  // namespace llmd::engine
