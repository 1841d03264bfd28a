// clang-format off: the vectors come before the bodies written over them.
#include "backend/cpu/kernels.h"
#include "backend/cpu/simd_scalar.h"
// clang-format on

namespace {

using simd::VI;
constexpr bool kByteDotBiased = true;

LLMD_INLINE VI DotByte(VI s, VI w, VI x) {
  uint8_t wb[sizeof(VI)];
  int8_t xb[sizeof(VI)];
  __builtin_memcpy(wb, &w, sizeof(VI));
  __builtin_memcpy(xb, &x, sizeof(VI));
  for (int i = 0; i < simd::kLanes; ++i) {
    for (int j = 0; j < 4; ++j) s.v[i] += wb[4 * i + j] * xb[4 * i + j];
  }
  return s;
}
LLMD_INLINE VI DotNibble(VI s, VI w, VI x) {
  return DotByte(s, w, x);
}

}  // namespace

#define LLMD_HAS_INT8_DOT
// clang-format off
#include "backend/cpu/gemm_body.h"
#include "backend/cpu/ops_body.h"
#include "backend/cpu/attention_body.h"
// clang-format on

namespace llmd::engine::cpu {

void FillScalar(KernelTable* table) {
  ops::Fill(table);
  gemm::FillF32Gemm(table);
  gemm::FillInt8Gemm(table);
}

}  // namespace llmd::engine::cpu
