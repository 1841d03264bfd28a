// clang-format off: the vectors come before the bodies written over them.
#include "backend/cpu/kernels.h"
#include "backend/cpu/simd_avx2.h"
// clang-format on

namespace {

using simd::VI;
// Biased bytes would overflow the 16-bit sums of vpmaddubsw, so the bias is taken off first.
constexpr bool kByteDotBiased = false;

LLMD_INLINE VI AddPairs(VI s, VI pairs) {
  return _mm256_add_epi32(s, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
LLMD_INLINE VI DotNibble(VI s, VI w, VI x) {
  return AddPairs(s, _mm256_maddubs_epi16(w, x));
}
LLMD_INLINE VI DotByte(VI s, VI w, VI x) {
  VI q = _mm256_xor_si256(w, _mm256_set1_epi8((char)0x80));
  return AddPairs(s, _mm256_maddubs_epi16(_mm256_abs_epi8(q), _mm256_sign_epi8(x, q)));
}

}  // namespace

#define LLMD_HAS_INT8_DOT
// clang-format off
#include "backend/cpu/gemm_body.h"
#include "backend/cpu/ops_body.h"
#include "backend/cpu/attention_body.h"
// clang-format on

namespace llmd::engine::cpu {

void FillAvx2(KernelTable* table) {
  ops::Fill(table);
  gemm::FillF32Gemm(table);
  gemm::FillInt8Gemm(table);
}

}  // namespace llmd::engine::cpu
