#include "llmd/engine/weights/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>
#include <random>

#include "engine/weights/gguf_builder.h"

namespace llmd::engine {
namespace {

using ::testing::ElementsAre;
using testing::GgufBuilder;
using ::testing::HasSubstr;

std::vector<std::byte> Sample() {
  GgufBuilder b;
  b.String("name", "seven");
  b.Scalar<uint8_t>("u8", GgufType::kUint8, 200);
  b.Scalar<int8_t>("i8", GgufType::kInt8, -3);
  b.Scalar<uint16_t>("u16", GgufType::kUint16, 65535);
  b.Scalar<int16_t>("i16", GgufType::kInt16, -300);
  b.Scalar<int32_t>("i32", GgufType::kInt32, -70000);
  b.Scalar<uint64_t>("u64", GgufType::kUint64, uint64_t{1} << 40);
  b.Scalar<uint64_t>("huge", GgufType::kUint64, ~uint64_t{0});
  b.Scalar<int64_t>("i64", GgufType::kInt64, -1);
  b.Scalar<double>("f64", GgufType::kFloat64, 0.125);
  b.Float32("f32", 2.5f);
  b.Uint32("u32", 7);
  b.Bool("yes", true);
  b.Strings("words", {"", "a", "bc"});
  b.Int32s("numbers", {3, -4});
  b.Tensor("t", {32, 2}, TensorType::kQ8_0, std::vector<float>(64, 1.0f));
  b.Tensor("v", {3}, TensorType::kF32, {1, 2, 3});
  return b.Build();
}

TEST(GgufFile, ReadsEveryKindOfKey) {
  std::vector<std::byte> bytes = Sample();
  auto file = GgufFile::Parse(bytes);
  ASSERT_TRUE(file.ok()) << file.status().ToString();
  const GgufFile& f = **file;
  EXPECT_EQ(f.version(), 3u);
  EXPECT_EQ(f.String("name"), "seven");
  EXPECT_EQ(f.Int("u8"), 200);
  EXPECT_EQ(f.Int("i8"), -3);
  EXPECT_EQ(f.Int("u16"), 65535);
  EXPECT_EQ(f.Int("i16"), -300);
  EXPECT_EQ(f.Int("u32"), 7);
  EXPECT_EQ(f.Int("i32"), -70000);
  EXPECT_EQ(f.Int("u64"), int64_t{1} << 40);
  EXPECT_EQ(f.Int("i64"), -1);
  EXPECT_EQ(f.Float("f32"), 2.5);
  EXPECT_EQ(f.Float("f64"), 0.125);
  EXPECT_EQ(f.Float("u32"), 7.0);
  EXPECT_EQ(f.Bool("yes"), true);
  EXPECT_THAT(*f.Strings("words"), ElementsAre("", "a", "bc"));
  EXPECT_THAT(*f.Ints("numbers"), ElementsAre(3, -4));
}

TEST(GgufFile, GivesNothingForAnAbsentOrDifferentKind) {
  std::vector<std::byte> bytes = Sample();
  auto file = GgufFile::Parse(bytes);
  ASSERT_TRUE(file.ok());
  EXPECT_FALSE((*file)->Has("absent"));
  EXPECT_FALSE((*file)->Int("absent"));
  EXPECT_FALSE((*file)->Int("name"));
  EXPECT_FALSE((*file)->Int("huge")) << "beyond int64";
  EXPECT_FALSE((*file)->Bool("u8"));
  EXPECT_FALSE((*file)->String("words"));
  EXPECT_FALSE((*file)->Strings("numbers"));
  EXPECT_FALSE((*file)->Ints("words"));
}

TEST(GgufFile, FindsTensors) {
  std::vector<std::byte> bytes = Sample();
  auto file = GgufFile::Parse(bytes);
  ASSERT_TRUE(file.ok());
  const TensorView* t = (*file)->Tensor("t");
  ASSERT_NE(t, nullptr);
  EXPECT_EQ(t->cols(), 32);
  EXPECT_EQ(t->rows(), 2);
  EXPECT_EQ(t->data.size(), 68u);
  std::vector<float> v(3);
  DequantizeRow(*(*file)->Tensor("v"), 0, v);
  EXPECT_THAT(v, ElementsAre(1, 2, 3));
  EXPECT_EQ((*file)->Tensor("absent"), nullptr);
}

TEST(GgufFile, ReadsVersionTwoAndRefusesOthers) {
  GgufBuilder b;
  EXPECT_TRUE(GgufFile::Parse(b.Build(2)).ok());
  for (uint32_t version : {0u, 1u, 4u, 0x03000000u}) {
    auto file = GgufFile::Parse(b.Build(version));
    EXPECT_EQ(file.status().code(), StatusCode::kUnimplemented) << version;
  }
}

// Every prefix of a file lacks something; none may crash, all must be refused.
TEST(GgufFile, RefusesEveryTruncation) {
  std::vector<std::byte> whole = Sample();
  for (size_t size = 0; size + 32 < whole.size(); ++size) {
    std::vector<std::byte> cut(whole.begin(), whole.begin() + static_cast<ptrdiff_t>(size));
    auto file = GgufFile::Parse(cut);
    ASSERT_FALSE(file.ok()) << "cut at " << size;
    ASSERT_EQ(file.status().code(), StatusCode::kInvalidArgument) << file.status().ToString();
  }
}

// Any single byte set to 0xff in the head reads as an error or as other values, never beyond the
// file (asan watches).
TEST(GgufFile, SurvivesDamageAnywhere) {
  std::vector<std::byte> whole = Sample();
  size_t refused = 0;
  for (size_t at = 0; at < whole.size(); ++at) {
    std::vector<std::byte> damaged = whole;
    damaged[at] = std::byte{0xff};
    auto file = GgufFile::Parse(damaged);
    if (!file.ok()) {
      ++refused;
      continue;
    }
    for (const TensorView& tensor : (*file)->tensors()) {
      std::vector<float> row(static_cast<size_t>(tensor.cols()));
      DequantizeRow(tensor, tensor.rows() - 1, row);
    }
  }
  EXPECT_GT(refused, whole.size() / 4);
}

std::vector<std::byte> WithCounts(uint64_t tensors, uint64_t keys) {
  std::vector<std::byte> bytes;
  testing::Append(bytes, "GGUF", 4);
  testing::AppendValue<uint32_t>(bytes, 3);
  testing::AppendValue(bytes, tensors);
  testing::AppendValue(bytes, keys);
  return bytes;
}

TEST(GgufFile, RefusesAbsurdCounts) {
  for (uint64_t count : {uint64_t{1}, uint64_t{1000}, uint64_t{1} << 32, ~uint64_t{0}}) {
    EXPECT_EQ(GgufFile::Parse(WithCounts(count, 0)).status().code(), StatusCode::kInvalidArgument);
    EXPECT_EQ(GgufFile::Parse(WithCounts(0, count)).status().code(), StatusCode::kInvalidArgument);
  }
}

TEST(GgufFile, RefusesArraysLongerThanTheFile) {
  for (uint64_t count : {uint64_t{100}, uint64_t{1} << 61, ~uint64_t{0}}) {
    for (uint32_t element : {0u, 5u, 8u, 12u}) {
      std::vector<std::byte> bytes = WithCounts(0, 1);
      testing::AppendValue<uint64_t>(bytes, 1);
      testing::Append(bytes, "k", 1);
      testing::AppendValue<uint32_t>(bytes, 9);
      testing::AppendValue(bytes, element);
      testing::AppendValue(bytes, count);
      EXPECT_EQ(GgufFile::Parse(bytes).status().code(), StatusCode::kInvalidArgument);
    }
  }
}

TEST(GgufFile, RefusesNestedArraysUnknownTypesAndDoubleKeys) {
  std::vector<std::byte> nested = WithCounts(0, 1);
  testing::AppendValue<uint64_t>(nested, 1);
  testing::Append(nested, "k", 1);
  testing::AppendValue<uint32_t>(nested, 9);
  testing::AppendValue<uint32_t>(nested, 9);
  testing::AppendValue<uint64_t>(nested, 0);
  EXPECT_EQ(GgufFile::Parse(nested).status().code(), StatusCode::kUnimplemented);

  GgufBuilder twice;
  twice.Bool("k", true);
  twice.Bool("k", false);
  EXPECT_THAT(GgufFile::Parse(twice.Build()).status().message(), HasSubstr("twice"));

  GgufBuilder odd;
  odd.Scalar<uint8_t>("k", static_cast<GgufType>(13), 0);
  EXPECT_THAT(GgufFile::Parse(odd.Build()).status().message(), HasSubstr("type 13"));
}

TEST(GgufFile, RefusesRowsOfPartialBlocks) {
  GgufBuilder b;
  b.Tensor("t", {16, 2}, TensorType::kQ8_0, std::vector<float>(32, 1.0f));
  EXPECT_THAT(GgufFile::Parse(b.Build()).status().message(), HasSubstr("multiple of 32"));
}

TEST(GgufFile, RefusesUnknownTensorTypesByName) {
  GgufBuilder b;
  b.Tensor("odd", {32}, static_cast<TensorType>(12), std::vector<float>());
  auto status = GgufFile::Parse(b.Build()).status();
  EXPECT_EQ(status.code(), StatusCode::kUnimplemented);
  EXPECT_THAT(status.message(), HasSubstr("odd"));
}

TEST(GgufFile, NamesTheFileInErrors) {
  EXPECT_EQ(GgufFile::Open("/nonexistent/x.gguf").status().code(), StatusCode::kNotFound);
  std::string path = ::testing::TempDir() + "llmd_not_a_model.gguf";
  std::ofstream(path) << "hello, this is no model";
  auto status = GgufFile::Open(path).status();
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr(path));
  std::remove(path.c_str());
}

}  // namespace
}  // namespace llmd::engine
