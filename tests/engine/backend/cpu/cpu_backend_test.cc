#include "backend/cpu/cpu_backend.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace llmd::engine::cpu {
namespace {

using ::testing::HasSubstr;

std::unique_ptr<Backend> Make(const std::string& isa, DType dtype) {
  ModelOptions options;
  options.isa = isa;
  options.dtype = dtype;
  options.threads = 1;
  auto backend = CreateCpuBackend(options);
  EXPECT_TRUE(backend.ok()) << backend.status().ToString();
  return std::move(*backend);
}

// A pool of so many bytes holds as many tokens on every CPU.
TEST(CpuBackend, AutoIsTheAccuracyOfBf16OnEveryPath) {
  for (const std::string& isa : CpuIsaNames()) {
    SCOPED_TRACE(isa);
    EXPECT_EQ(Make(isa, DType::kAuto)->kv_type(), ElementType::kBF16);
    EXPECT_THAT(Make(isa, DType::kAuto)->Describe(), HasSubstr("bfloat16"));
    EXPECT_EQ(Make(isa, DType::kBFloat16)->kv_type(), ElementType::kBF16);
    EXPECT_EQ(Make(isa, DType::kFloat32)->kv_type(), ElementType::kF32);
  }
  EXPECT_EQ(Make("", DType::kAuto)->kv_type(), ElementType::kBF16);
}

}  // namespace
}  // namespace llmd::engine::cpu
