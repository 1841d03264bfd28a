#include "backend/cpu/isa.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>

#include "llmd/engine/backend.h"

namespace llmd::engine::cpu {
namespace {

using ::testing::HasSubstr;

class ForcedIsa {
 public:
  explicit ForcedIsa(const char* name) { ::setenv("LLMD_CPU_ISA", name, 1); }
  ~ForcedIsa() { ::unsetenv("LLMD_CPU_ISA"); }
};

TEST(ChooseIsa, PrintsTheMatrixOfThisCpu) {
  std::string text;
  for (const std::string& name : CpuIsaNames()) text += " " + name;
  std::printf("[ ISA      ]%s\n", text.c_str());
  EXPECT_EQ(CpuIsaNames().front(), "scalar");
}

TEST(ChooseIsa, TakesTheBestWhenFree) {
  EXPECT_TRUE(IsaIsFree(""));
  auto isa = ChooseIsa("");
  ASSERT_TRUE(isa.ok());
  EXPECT_EQ(*isa, AvailableIsas().back());
}

TEST(ChooseIsa, ObeysTheEnvironmentUnlessTold) {
  ForcedIsa forced("scalar");
  EXPECT_FALSE(IsaIsFree(""));
  EXPECT_EQ(*ChooseIsa(""), Isa::kScalar);
  EXPECT_EQ(*ChooseIsa(std::string(IsaName(AvailableIsas().back()))), AvailableIsas().back());
}

TEST(ChooseIsa, ListsWhatThereIs) {
  auto isa = ChooseIsa("sse9");
  EXPECT_EQ(isa.status().code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(isa.status().message(), HasSubstr("scalar"));
  ModelOptions options;
  options.isa = "sse9";
  EXPECT_EQ(CreateCpuBackend(options).status().code(), StatusCode::kInvalidArgument);
}

TEST(KernelsOf, HasEveryOperationOnEveryPath) {
  for (Isa isa : AvailableIsas()) {
    KernelTable table = KernelsOf(isa);
    for (int format = 0; format < kFormatCount; ++format) {
      EXPECT_NE(table.gemm[kArithmeticF32][format], nullptr) << IsaName(isa);
    }
    EXPECT_NE(table.gemm[kArithmeticInt8][kFormatQ4], nullptr);
    EXPECT_NE(table.gemm[kArithmeticInt8][kFormatQ8], nullptr);
    EXPECT_NE(table.attention, nullptr);
    EXPECT_GT(MeasureMultiplyAdds(table, kArithmeticF32), 0);
  }
}

}  // namespace
}  // namespace llmd::engine::cpu
