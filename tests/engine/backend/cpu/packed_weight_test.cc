#include "backend/cpu/packed_weight.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/backend/cpu/kernel_support.h"

namespace llmd::engine::cpu {
namespace {

using ::testing::HasSubstr;

TEST(PackedWeight, UnpacksWhatItPacked) {
  for (TensorType type : {TensorType::kF32, TensorType::kBF16, TensorType::kQ4_0, TensorType::kQ4_1,
                          TensorType::kQ8_0}) {
    Matrix matrix(type, 70, 96, 3);
    for (int a = 0; a < kArithmeticCount; ++a) {
      auto arithmetic = static_cast<Arithmetic>(a);
      if (arithmetic == kArithmeticFixed16 && !IsQuantised(type)) continue;
      auto packed = PackMatrix(matrix, arithmetic);
      bool lossy = BlockElements(type) == 1 &&
                   (arithmetic == kArithmeticInt8 ||
                    (arithmetic == kArithmeticBf16Dot && type == TensorType::kF32));
      for (int row : {0, 31, 32, 69}) {
        std::vector<float> want = matrix.Row(row), got(96);
        packed->Unpack(row, got);
        for (int k = 0; k < 96; ++k)
          ASSERT_NEAR(got[k], want[k], lossy ? 0.01 : 1e-6) << TensorTypeName(type) << " " << a;
      }
    }
  }
}

TEST(PackedWeight, KeepsQuantisedWeightsSmall) {
  Matrix q4(TensorType::kQ4_1, 64, 320, 1), q8(TensorType::kQ8_0, 64, 320, 1);
  EXPECT_EQ(PackMatrix(q4, kArithmeticF32)->size_bytes(), q4.bytes.size());
  EXPECT_EQ(PackMatrix(q8, kArithmeticF32)->size_bytes(), q8.bytes.size());
}

TEST(PackedWeight, FollowsTheRowTable) {
  Matrix a(TensorType::kQ8_0, 4, 32, 1), b(TensorType::kQ8_0, 2, 32, 2);
  WeightSpec spec;
  spec.parts = {a.view, b.view};
  spec.rows = {{1, 1}, {0, 3}, {0, 0}, {1, 0}};
  ThreadPool pool(2);
  auto packed = PackedWeight::Create(spec, kArithmeticF32, false, pool);
  ASSERT_TRUE(packed.ok());
  EXPECT_EQ((*packed)->rows(), 4);
  std::vector<float> got(32);
  (*packed)->Unpack(0, got);
  EXPECT_EQ(got, b.Row(1));
  (*packed)->Unpack(1, got);
  EXPECT_EQ(got, a.Row(3));
}

TEST(PackedWeight, MixesTypesExactlyInFloat) {
  Matrix a(TensorType::kQ4_1, 4, 32, 1), b(TensorType::kQ8_0, 2, 32, 2);
  ThreadPool pool(1);
  auto packed = PackedWeight::Create(ConcatRows({a.view, b.view}), kArithmeticF32, false, pool);
  ASSERT_TRUE(packed.ok());
  EXPECT_EQ((*packed)->format(), kFormatF32);
  std::vector<float> got(32);
  (*packed)->Unpack(5, got);
  EXPECT_EQ(got, b.Row(1));
}

TEST(PackedWeight, RefusesUnequalInputsAndAbsentRows) {
  Matrix a(TensorType::kF32, 4, 32, 1), b(TensorType::kF32, 2, 64, 2);
  ThreadPool pool(1);
  EXPECT_THAT(PackedWeight::Create(ConcatRows({a.view, b.view}), kArithmeticF32, false, pool)
                  .status()
                  .message(),
              HasSubstr("64 inputs"));
  WeightSpec spec;
  spec.parts = {a.view};
  spec.rows = {{0, 4}};
  EXPECT_THAT(PackedWeight::Create(spec, kArithmeticF32, false, pool).status().message(),
              HasSubstr("row 4"));
  EXPECT_FALSE(PackedWeight::Create(WeightSpec{}, kArithmeticF32, false, pool).ok());
}

}  // namespace
}  // namespace llmd::engine::cpu
