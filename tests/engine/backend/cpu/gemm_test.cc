#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "engine/backend/cpu/kernel_support.h"

namespace llmd::engine::cpu {
namespace {

constexpr TensorType kTypes[] = {TensorType::kF32,  TensorType::kF16,  TensorType::kBF16,
                                 TensorType::kQ4_0, TensorType::kQ4_1, TensorType::kQ8_0};

// What one multiplication may err by, relative to the norms of its row and column.
double Tolerance(Arithmetic arithmetic, TensorType type) {
  if (arithmetic == kArithmeticF32) return 1e-6;
  if (arithmetic == kArithmeticFixed16) return 4e-5;
  bool dense = type == TensorType::kF32 || type == TensorType::kF16;
  if (arithmetic == kArithmeticBf16Dot) return dense ? 4e-3 : 2e-3;
  return dense || type == TensorType::kBF16 ? 1e-2 : 6e-3;
}

void ExpectNear(const Matrix& matrix, const std::vector<float>& x, int rows,
                const std::vector<float>& got, double tolerance) {
  for (int n = 0; n < matrix.rows; ++n) {
    std::vector<float> w = matrix.Row(n);
    double w_norm = 0;
    for (float value : w) w_norm += static_cast<double>(value) * value;
    for (int m = 0; m < rows; ++m) {
      const float* row = x.data() + static_cast<size_t>(m) * matrix.cols;
      double sum = 0, x_norm = 0;
      for (int k = 0; k < matrix.cols; ++k) {
        sum += static_cast<double>(row[k]) * w[k];
        x_norm += static_cast<double>(row[k]) * row[k];
      }
      ASSERT_NEAR(got[static_cast<size_t>(m) * matrix.rows + n], sum,
                  tolerance * std::sqrt(w_norm * x_norm) + 1e-6)
          << "row " << m << " column " << n;
    }
  }
}

TEST(Gemm, AgreesWithDoublePrecisionOnEveryPathAndType) {
  for (TensorType type : kTypes) {
    for (auto [n, k] : {std::pair{1, 32}, {33, 64}, {96, 96}, {70, 576}}) {
      Matrix matrix(type, n, k, 7);
      std::mt19937 random(11);
      std::vector<float> x = testing::RandomFloats(static_cast<size_t>(13) * k, 1.0f, random);
      ForEachPath(type, [&](Isa, const KernelTable& kernels, Arithmetic arithmetic) {
        SCOPED_TRACE(std::string(TensorTypeName(type)) + " " + std::to_string(n) + "x" +
                     std::to_string(k));
        auto packed = PackMatrix(matrix, arithmetic);
        for (int rows : {1, 2, 3, 4, 5, 13}) {
          ExpectNear(matrix, x, rows, Multiply(kernels, *packed, x, rows),
                     Tolerance(arithmetic, type));
        }
      });
    }
  }
}

TEST(Gemm, PadsInputsThatAreNoMultipleOfTheGroup) {
  Matrix matrix(TensorType::kF32, 40, 45, 3);
  std::mt19937 random(5);
  std::vector<float> x = testing::RandomFloats(6 * 45, 1.0f, random);
  ForEachPath(TensorType::kF32, [&](Isa, const KernelTable& kernels, Arithmetic arithmetic) {
    auto packed = PackMatrix(matrix, arithmetic);
    ExpectNear(matrix, x, 6, Multiply(kernels, *packed, x, 6),
               Tolerance(arithmetic, TensorType::kF32));
  });
}

// The contract the whole engine stands on: bit for bit the same row, whatever shares the call.
TEST(Gemm, GivesARowTheSameBitsAloneAndInCompany) {
  constexpr int kCols = 192, kRows = 64;
  for (TensorType type : kTypes) {
    Matrix matrix(type, 96, kCols, 21);
    std::mt19937 random(22);
    std::vector<float> x = testing::RandomFloats(kRows * kCols, 1.0f, random);
    ForEachPath(type, [&](Isa, const KernelTable& kernels, Arithmetic arithmetic) {
      SCOPED_TRACE(TensorTypeName(type));
      auto packed = PackMatrix(matrix, arithmetic);
      std::vector<float> all = Multiply(kernels, *packed, x, kRows);
      for (int rows : {1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 31, 63}) {
        std::vector<float> from(x.end() - rows * kCols, x.end());
        std::vector<float> some = Multiply(kernels, *packed, from, rows);
        ASSERT_EQ(0, std::memcmp(some.data(), all.data() + all.size() - some.size(),
                                 some.size() * sizeof(float)))
            << rows << " rows";
      }
    });
  }
}

TEST(Gemm, RoundsActivationsToBf16WhenAsked) {
  Matrix matrix(TensorType::kQ4_1, 32, 64, 9);
  std::vector<float> x(64, 1.0f + 0x1p-10f), rounded(64, 1.0f);
  for (Isa isa : AvailableIsas()) {
    KernelTable kernels = KernelsOf(isa);
    auto packed = PackMatrix(matrix, kArithmeticF32);
    EXPECT_EQ(Multiply(kernels, *packed, x, 1, true), Multiply(kernels, *packed, rounded, 1));
    EXPECT_NE(Multiply(kernels, *packed, x, 1), Multiply(kernels, *packed, rounded, 1));
  }
}

TEST(Gemm, Int8HandlesExtremesWithoutSaturating) {
  std::vector<std::byte> block;
  for (int g = 0; g < 2; ++g) {
    testing::AppendValue<uint16_t>(block, 0x3c00);  // 1.0
    for (int k = 0; k < 32; ++k) testing::AppendValue<int8_t>(block, k % 3 == 0 ? -128 : 127);
  }
  Matrix matrix(TensorType::kQ8_0, 1, 64, 1);
  matrix.bytes = block;
  matrix.view.data = matrix.bytes;
  std::vector<float> x(64);
  for (int k = 0; k < 64; ++k) x[k] = k % 3 == 0 ? -1.0f : 1.0f;
  double exact = 0;
  for (int k = 0; k < 64; ++k) exact += k % 32 % 3 == 0 ? -128 * x[k] : 127 * x[k];
  ForEachPath(TensorType::kQ8_0, [&](Isa, const KernelTable& kernels, Arithmetic arithmetic) {
    auto packed = PackMatrix(matrix, arithmetic);
    EXPECT_NEAR(Multiply(kernels, *packed, x, 1)[0], exact, 1e-3);
  });
}

TEST(Prepare, GivesZeroScaleToAZeroGroup) {
  Matrix matrix(TensorType::kQ8_0, 32, 32, 1);
  ForEachPath(TensorType::kQ8_0, [&](Isa, const KernelTable& kernels, Arithmetic arithmetic) {
    auto packed = PackMatrix(matrix, arithmetic);
    for (float value : Multiply(kernels, *packed, std::vector<float>(32, 0.0f), 1))
      EXPECT_EQ(value, 0);
  });
}

}  // namespace
}  // namespace llmd::engine::cpu
