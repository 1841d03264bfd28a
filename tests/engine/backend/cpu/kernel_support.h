// What the kernel tests share: packed random weights, prepared activations, a call per number of
// rows.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <random>
#include <string>
#include <vector>

#include "backend/cpu/isa.h"
#include "backend/cpu/packed_weight.h"
#include "engine/weights/gguf_builder.h"

namespace llmd::engine::cpu {

struct Matrix {
  std::vector<std::byte> bytes;
  TensorView view;
  int rows = 0, cols = 0;

  Matrix(TensorType type, int rows, int cols, uint32_t seed) : rows(rows), cols(cols) {
    std::mt19937 random(seed);
    bytes = testing::Quantize(
        type, testing::RandomFloats(static_cast<size_t>(rows) * cols, 0.5f, random));
    view.name = "w";
    view.type = type;
    view.dims = {cols, rows, 1, 1};
    view.data = bytes;
  }
  std::vector<float> Row(int index) const {
    std::vector<float> out(cols);
    DequantizeRow(view, index, out);
    return out;
  }
};

inline std::unique_ptr<PackedWeight> PackMatrix(const Matrix& matrix, Arithmetic arithmetic) {
  ThreadPool pool(1);
  auto packed = PackedWeight::Create(ConcatRows({matrix.view}), arithmetic, false, pool);
  EXPECT_TRUE(packed.ok()) << packed.status().ToString();
  return packed.ok() ? std::move(*packed) : nullptr;
}

// x [rows][cols] · Wᵀ by the kernels of one path, rows prepared and multiplied in one call.
inline std::vector<float> Multiply(const KernelTable& kernels, const PackedWeight& weight,
                                   const std::vector<float>& x, int rows, bool round_bf16 = false) {
  int groups = weight.groups(), cols = static_cast<int>(weight.cols());
  Arithmetic arithmetic = weight.arithmetic();
  size_t cells = static_cast<size_t>(rows) * groups;
  std::vector<float> values(cells * kGroup), sums(cells), scales(cells);
  std::vector<int32_t> isums(cells);
  size_t bytes = PreparedGroupBytes(arithmetic);
  for (int row = 0; row < rows; ++row) {
    PrepareCall call{x.data() + static_cast<size_t>(row) * cols,
                     cols,
                     groups,
                     rows,
                     round_bf16,
                     reinterpret_cast<std::byte*>(values.data()) + row * bytes,
                     sums.data() + row,
                     scales.data() + row,
                     isums.data() + row};
    kernels.prepare[arithmetic](&call);
  }
  alignas(64) static std::byte scratch[4096];
  std::vector<float> tiles(static_cast<size_t>(weight.tiles()) * rows * kTileColumns);
  GemmCall call{weight.tile(0),
                weight.tile_bytes(),
                weight.tiles(),
                groups,
                values.data(),
                sums.data(),
                HasActivationScale(arithmetic) ? scales.data() : nullptr,
                HasActivationScale(arithmetic) ? isums.data() : nullptr,
                rows,
                rows,
                tiles.data(),
                scratch};
  kernels.gemm[arithmetic][weight.format()](&call);
  std::vector<float> out(static_cast<size_t>(rows) * weight.rows());
  for (int row = 0; row < rows; ++row) {
    for (int n = 0; n < weight.rows(); ++n) {
      out[static_cast<size_t>(row) * weight.rows() + n] =
          tiles[(n / kTileColumns * rows + row) * kTileColumns + n % kTileColumns];
    }
  }
  return out;
}

inline const char* ArithmeticName(Arithmetic a) {
  constexpr const char* kNames[] = {"f32", "bf16 dot", "int8", "fixed16"};
  return kNames[a];
}

inline bool IsQuantised(TensorType type) {
  return BlockElements(type) > 1;
}

// Calls body(isa, kernels, arithmetic) for every path of this CPU that multiplies weights of
// `type`.
template <typename Body>
void ForEachPath(TensorType type, const Body& body) {
  for (Isa isa : AvailableIsas()) {
    KernelTable kernels = KernelsOf(isa);
    for (int a = 0; a < kArithmeticCount; ++a) {
      if (kernels.gemm[a][kFormatQ4] == nullptr) continue;
      if (a == kArithmeticFixed16 && !IsQuantised(type)) continue;
      SCOPED_TRACE(std::string(IsaName(isa)) + " " + ArithmeticName(static_cast<Arithmetic>(a)));
      body(isa, kernels, static_cast<Arithmetic>(a));
    }
  }
}

}  // namespace llmd::engine::cpu
