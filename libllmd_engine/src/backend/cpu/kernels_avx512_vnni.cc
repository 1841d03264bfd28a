// clang-format off: the vectors come before the bodies written over them.
#include "backend/cpu/kernels.h"
#include "backend/cpu/simd_avx512.h"
// clang-format on

namespace {

using simd::VI;
constexpr bool kByteDotBiased = true;

LLMD_INLINE VI DotByte(VI s, VI w, VI x) {
  return _mm512_dpbusd_epi32(s, w, x);
}
LLMD_INLINE VI DotNibble(VI s, VI w, VI x) {
  return _mm512_dpbusd_epi32(s, w, x);
}

double ProbeInt8(int iterations) {
  VI acc[12], x = simd::Set1I(0x01010101), y = simd::Set1I(0x01020102);
  for (int i = 0; i < 12; ++i) acc[i] = simd::Set1I(i);
  for (int n = 0; n < iterations; ++n) {
    for (int i = 0; i < 12; ++i) acc[i] = _mm512_dpbusd_epi32(acc[i], x, y);
  }
  VI sum = acc[0];
  for (int i = 1; i < 12; ++i) sum = simd::AddI(sum, acc[i]);
  volatile int32_t sink = simd::ReduceAddI(sum);
  (void)sink;
  return 12.0 * 64 * iterations;
}

}  // namespace

#define LLMD_HAS_INT8_DOT
#include "backend/cpu/gemm_body.h"

namespace llmd::engine::cpu {

void FillAvx512Vnni(KernelTable* table) {
  gemm::FillInt8Gemm(table);
  gemm::FillFixed16Gemm(table);
  table->probe[kArithmeticInt8] = ProbeInt8;
}

}  // namespace llmd::engine::cpu
