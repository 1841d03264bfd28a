#include "llmd/engine/weights/tensor_view.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "engine/weights/gguf_builder.h"

namespace llmd::engine {
namespace {

TensorView View(TensorType type, const std::vector<std::byte>& bytes, int64_t cols) {
  TensorView view;
  view.type = type;
  view.dims[0] = cols;
  view.data = bytes;
  return view;
}

// A block with scale 0.5, minimum −2 and nibbles 0 … 15, then 15 … 0.
std::vector<std::byte> HandMadeNibbles(bool minimum) {
  std::vector<std::byte> block{std::byte{0x00}, std::byte{0x38}};
  if (minimum) block.insert(block.end(), {std::byte{0x00}, std::byte{0xc0}});
  for (int i = 0; i < 16; ++i) block.push_back(static_cast<std::byte>(i | (15 - i) << 4));
  return block;
}

TEST(DequantizeRow, ReadsAHandMadeQ41Block) {
  std::vector<float> out(32);
  DequantizeRow(View(TensorType::kQ4_1, HandMadeNibbles(true), 32), 0, out);
  for (int i = 0; i < 16; ++i) {
    EXPECT_EQ(out[i], 0.5f * static_cast<float>(i) - 2);
    EXPECT_EQ(out[i + 16], 0.5f * static_cast<float>(15 - i) - 2);
  }
}

TEST(DequantizeRow, ReadsAHandMadeQ40Block) {
  std::vector<float> out(32);
  DequantizeRow(View(TensorType::kQ4_0, HandMadeNibbles(false), 32), 0, out);
  for (int i = 0; i < 16; ++i) {
    EXPECT_EQ(out[i], 0.5f * static_cast<float>(i - 8));
    EXPECT_EQ(out[i + 16], 0.5f * static_cast<float>(7 - i));
  }
}

TEST(DequantizeRow, ReadsAHandMadeQ80Block) {
  std::vector<std::byte> block{std::byte{0x00}, std::byte{0x34}};  // 0.25
  for (int i = 0; i < 32; ++i) block.push_back(static_cast<std::byte>(i * 8 - 128));
  std::vector<float> out(32);
  DequantizeRow(View(TensorType::kQ8_0, block, 32), 0, out);
  for (int i = 0; i < 32; ++i) EXPECT_EQ(out[i], 0.25f * static_cast<float>(i * 8 - 128));
}

TEST(DequantizeRow, TakesTheRowAskedFor) {
  for (TensorType type :
       {TensorType::kF32, TensorType::kF16, TensorType::kBF16, TensorType::kQ8_0}) {
    std::vector<float> values(3 * 32);
    for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i / 32) + 1;
    std::vector<std::byte> bytes = testing::Quantize(type, values);
    TensorView view = View(type, bytes, 32);
    view.dims[1] = 3;
    std::vector<float> out(32);
    DequantizeRow(view, 2, out);
    for (float value : out) EXPECT_NEAR(value, 3, 0.01) << TensorTypeName(type);
  }
}

TEST(HalfToFloat, ConvertsEveryFiniteValueThereAndBack) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    if ((bits & 0x7c00) == 0x7c00) continue;
    ASSERT_EQ(FloatToHalf(HalfToFloat(static_cast<uint16_t>(bits))), bits);
  }
}

TEST(FloatToHalf, RoundsToNearestEven) {
  EXPECT_EQ(FloatToHalf(1.0f + 0x1p-11f), 0x3c00);  // a tie goes to even
  EXPECT_EQ(FloatToHalf(1.0f + 3 * 0x1p-11f), 0x3c02);
  EXPECT_EQ(FloatToHalf(65520.0f), 0x7c00);
  EXPECT_EQ(FloatToHalf(std::numeric_limits<float>::infinity()), 0x7c00);
  EXPECT_EQ(FloatToHalf(0x1p-25f), 0x0000);
  EXPECT_EQ(FloatToHalf(-0x1.8p-24f), 0x8002);
  EXPECT_TRUE(std::isnan(HalfToFloat(FloatToHalf(std::nanf("")))));
}

TEST(FloatToBFloat16, RoundsToNearestEven) {
  EXPECT_EQ(BFloat16ToFloat(FloatToBFloat16(1.0f + 0x1p-8f)), 1.0f);
  EXPECT_EQ(BFloat16ToFloat(FloatToBFloat16(1.0f + 3 * 0x1p-8f)), 1.0f + 0x1p-6f);
  EXPECT_EQ(BFloat16ToFloat(FloatToBFloat16(-3.0f)), -3.0f);
  EXPECT_TRUE(std::isnan(BFloat16ToFloat(FloatToBFloat16(std::nanf("")))));
}

}  // namespace
}  // namespace llmd::engine
