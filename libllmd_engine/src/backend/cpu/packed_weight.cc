#include "backend/cpu/packed_weight.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

namespace llmd::engine::cpu {
namespace {

constexpr size_t kHugePage = 2 << 20;

bool IsQ4(TensorType type) {
  return type == TensorType::kQ4_0 || type == TensorType::kQ4_1;
}

template <typename Test>
bool All(const WeightSpec& spec, const Test& test) {
  return std::all_of(spec.parts.begin(), spec.parts.end(),
                     [&](const TensorView& part) { return test(part.type); });
}

bool AllQ4(const WeightSpec& spec) {
  return All(spec, IsQ4);
}

bool AllQ8(const WeightSpec& spec) {
  return All(spec, [](TensorType type) { return type == TensorType::kQ8_0; });
}

int InputsPerLane(Arithmetic arithmetic) {
  return arithmetic == kArithmeticF32 ? 1 : arithmetic == kArithmeticBf16Dot ? 2 : 4;
}

// Where input k of 32 and column `col` stand in a group's [k / r][col][r] values.
int ElementIndex(int k, int col, int r) {
  return (k / r * kTileColumns + col) * r + k % r;
}

Format DenseFormat(Arithmetic arithmetic, bool dense_bf16) {
  if (arithmetic == kArithmeticInt8) return kFormatQ8;
  return arithmetic == kArithmeticBf16Dot || dense_bf16 ? kFormatBf16 : kFormatF32;
}

Format ChooseFormat(const WeightSpec& spec, Arithmetic arithmetic, bool dense_bf16) {
  if (AllQ4(spec)) return kFormatQ4;
  if (AllQ8(spec)) return kFormatQ8;
  LLMD_CHECK(arithmetic != kArithmeticFixed16);
  bool bf16 = All(spec, [](TensorType type) { return type == TensorType::kBF16; });
  return DenseFormat(arithmetic, dense_bf16 || bf16);
}

uint16_t Load16(const std::byte* p) {
  uint16_t v;
  std::memcpy(&v, p, 2);
  return v;
}

void Store16(uint8_t* p, uint16_t v) {
  std::memcpy(p, &v, 2);
}

uint16_t NibbleMinimum(TensorType type, const std::byte* block) {
  if (type == TensorType::kQ4_1) return Load16(block + 2);
  return FloatToHalf(-8.0f * HalfToFloat(Load16(block)));
}

void PackNibbles(TensorType type, const std::byte* block, uint8_t* group, int col, int r) {
  Store16(group + col * 2, Load16(block));
  Store16(group + 64 + col * 2, NibbleMinimum(type, block));
  const std::byte* q = block + (type == TensorType::kQ4_1 ? 4 : 2);
  for (int octet = 0; octet < 4; ++octet) {
    uint32_t word = 0;
    for (int j = 0; j < 8; ++j) {
      int k = octet * 8 + j;
      auto byte = static_cast<uint32_t>(q[k % 16]);
      word |= (k < 16 ? byte & 15 : byte >> 4) << (4 * NibbleOf(j, r));
    }
    std::memcpy(group + 128 + (octet * kTileColumns + col) * 4, &word, 4);
  }
}

void PackBytes(const int8_t* values, uint16_t scale, uint8_t* group, int col, int r) {
  Store16(group + col * 2, scale);
  for (int k = 0; k < kGroup; ++k) {
    int value = values[k] + (r == 4 ? 128 : 0);
    group[64 + ElementIndex(k, col, r)] = static_cast<uint8_t>(value);
  }
}

void QuantizeGroup(const float* x, int8_t* q, uint16_t& scale) {
  float top = 0;
  for (int k = 0; k < kGroup; ++k) top = std::max(top, std::fabs(x[k]));
  scale = FloatToHalf(top / 127.0f);
  float d = HalfToFloat(scale);
  for (int k = 0; k < kGroup; ++k) {
    float value = d > 0 ? std::nearbyint(x[k] / d) : 0.0f;
    q[k] = static_cast<int8_t>(std::clamp(value, -127.0f, 127.0f));
  }
}

}  // namespace

bool StaysQuantised(const WeightSpec& spec) {
  return AllQ4(spec) || AllQ8(spec);
}

StatusOr<std::unique_ptr<HostBuffer>> HostBuffer::Create(size_t size_bytes) {
  std::unique_ptr<HostBuffer> buffer(new HostBuffer());
  size_t mapped = (std::max<size_t>(size_bytes, 1) + 4095) / 4096 * 4096;
  if (mapped >= kHugePage) mapped = (mapped + kHugePage - 1) / kHugePage * kHugePage;
  void* p = ::mmap(nullptr, mapped, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) {
    return ResourceExhausted("cannot allocate " + std::to_string(size_bytes) +
                             " bytes: " + std::strerror(errno));
  }
  if (mapped >= kHugePage) ::madvise(p, mapped, MADV_HUGEPAGE);
  buffer->address_ = static_cast<std::byte*>(p);
  buffer->size_ = size_bytes;
  buffer->mapped_ = mapped;
  return buffer;
}

HostBuffer::~HostBuffer() {
  if (mapped_ > 0) ::munmap(address_, mapped_);
}

StatusOr<std::unique_ptr<PackedWeight>> PackedWeight::Create(const WeightSpec& spec,
                                                             Arithmetic arithmetic, bool dense_bf16,
                                                             ThreadPool& pool) {
  if (spec.parts.empty() || spec.rows.empty())
    return InvalidArgument("a weight needs at least one row");
  for (const TensorView& part : spec.parts) {
    if (part.cols() != spec.parts[0].cols()) {
      return InvalidArgument("tensor " + std::string(part.name) + " has " +
                             std::to_string(part.cols()) + " inputs, expected " +
                             std::to_string(spec.parts[0].cols()));
    }
  }
  for (WeightSpec::RowRef ref : spec.rows) {
    if (ref.part >= spec.parts.size() || ref.row >= spec.parts[ref.part].rows()) {
      return InvalidArgument("a weight names row " + std::to_string(ref.row) +
                             " that its tensor does not have");
    }
  }
  std::unique_ptr<PackedWeight> weight(new PackedWeight());
  weight->rows_ = static_cast<int64_t>(spec.rows.size());
  weight->cols_ = spec.parts[0].cols();
  weight->arithmetic_ = arithmetic;
  weight->format_ = ChooseFormat(spec, arithmetic, dense_bf16);
  LLMD_ASSIGN_OR_RETURN(weight->buffer_,
                        HostBuffer::Create(weight->tiles() * weight->tile_bytes()));
  PackedWeight* to = weight.get();
  pool.For(weight->tiles(), 1, [&spec, to](int, int begin, int end) {
    std::vector<float> scratch(static_cast<size_t>(to->groups()) * kGroup);
    int64_t last = std::min<int64_t>(static_cast<int64_t>(end) * kTileColumns, to->rows_);
    for (int64_t row = static_cast<int64_t>(begin) * kTileColumns; row < last; ++row) {
      to->PackRow(spec.parts[spec.rows[row].part], spec.rows[row].row, row, scratch);
    }
  });
  return weight;
}

void PackedWeight::PackRow(const TensorView& tensor, int64_t from, int64_t to,
                           std::span<float> scratch) {
  auto* at = reinterpret_cast<uint8_t*>(buffer_->address()) + to / kTileColumns * tile_bytes();
  int col = static_cast<int>(to % kTileColumns);
  bool blocked = format_ == kFormatQ4 || (format_ == kFormatQ8 && tensor.type == TensorType::kQ8_0);
  if (blocked) return PackBlocks(tensor, from, at, col);
  DequantizeRow(tensor, from, scratch.first(cols_));
  PackDense(scratch, at, col);
}

void PackedWeight::PackBlocks(const TensorView& tensor, int64_t from, uint8_t* tile, int col) {
  const std::byte* block = tensor.row(from).data();
  int r = InputsPerLane(arithmetic_);
  for (int g = 0; g < groups();
       ++g, block += BlockBytes(tensor.type), tile += GroupBytes(format_)) {
    if (format_ == kFormatQ4) {
      PackNibbles(tensor.type, block, tile, col, r);
    } else {
      PackBytes(reinterpret_cast<const int8_t*>(block + 2), Load16(block), tile, col, r);
    }
  }
}

void PackedWeight::PackDense(std::span<const float> values, uint8_t* tile, int col) {
  int r = InputsPerLane(arithmetic_);
  for (int g = 0; g < groups(); ++g, tile += GroupBytes(format_)) {
    const float* x = values.data() + static_cast<size_t>(g) * kGroup;
    if (format_ == kFormatQ8) {
      int8_t q[kGroup];
      uint16_t scale = 0;
      QuantizeGroup(x, q, scale);
      PackBytes(q, scale, tile, col, r);
      continue;
    }
    for (int k = 0; k < kGroup; ++k) {
      if (format_ == kFormatF32) {
        std::memcpy(tile + ElementIndex(k, col, 1) * 4, &x[k], 4);
      } else {
        Store16(tile + ElementIndex(k, col, r) * 2, FloatToBFloat16(x[k]));
      }
    }
  }
}

void PackedWeight::Unpack(int64_t row, std::span<float> out) const {
  const uint8_t* group = tile(static_cast<int>(row / kTileColumns));
  int col = static_cast<int>(row % kTileColumns), r = InputsPerLane(arithmetic_);
  auto load16 = [&](int offset) {
    return Load16(reinterpret_cast<const std::byte*>(group) + offset);
  };
  for (size_t i = 0; i < out.size(); ++i) {
    int k = static_cast<int>(i % kGroup);
    if (i > 0 && k == 0) group += GroupBytes(format_);
    int index = ElementIndex(k, col, r);
    switch (format_) {
      case kFormatF32:
        std::memcpy(&out[i], group + index * 4, 4);
        break;
      case kFormatBf16:
        out[i] = BFloat16ToFloat(load16(index * 2));
        break;
      case kFormatQ4: {
        uint32_t word = 0;
        std::memcpy(&word, group + 128 + (k / 8 * kTileColumns + col) * 4, 4);
        auto q = static_cast<float>(word >> (4 * NibbleOf(k % 8, r)) & 15);
        out[i] = q * HalfToFloat(load16(col * 2)) + HalfToFloat(load16(64 + col * 2));
        break;
      }
      default: {
        int q = r == 4 ? group[64 + index] - 128 : static_cast<int8_t>(group[64 + index]);
        out[i] = static_cast<float>(q) * HalfToFloat(load16(col * 2));
      }
    }
  }
}

}  // namespace llmd::engine::cpu
