// clang-format off: the vectors come before the bodies written over them.
#include "backend/cpu/kernels.h"
#include "backend/cpu/simd_avx512.h"
#include "backend/cpu/gemm_body.h"
// clang-format on

namespace {

using namespace simd;               // NOLINT: file-local by design
using namespace llmd::engine::cpu;  // NOLINT

LLMD_INLINE __m512bh AsBf16(VI v) {
  __m512bh r;
  __builtin_memcpy(&r, &v, sizeof(r));
  return r;
}

// Pairs of bf16 inputs a lane, products and sums in f32.
struct Bf16Dot {
  static constexpr int kSteps = 16, kRowWords = 16;
  using Acc = VF;
  using Wt = VI;
  LLMD_INLINE Acc Zero() { return Set1(0); }
  LLMD_INLINE Acc Dot(Acc s, Wt w, const uint32_t* x) {
    int32_t pair;
    __builtin_memcpy(&pair, x, 4);
    return _mm512_dpbf16_ps(s, AsBf16(Set1I(pair)), AsBf16(w));
  }
  LLMD_INLINE Wt LoadW(const void* p) { return LoadI(p); }
  LLMD_INLINE void StoreW(void* p, Wt w) { StoreI(p, w); }
};

// 0 … 15 as bf16, looked up by the low five bits of each word; twice, so that the fifth bit does
// not matter.
alignas(64) constexpr uint16_t kNibbles[32] = {
    0x0000, 0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0, 0x40c0, 0x40e0, 0x4100, 0x4110, 0x4120,
    0x4130, 0x4140, 0x4150, 0x4160, 0x4170, 0x0000, 0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0,
    0x40c0, 0x40e0, 0x4100, 0x4110, 0x4120, 0x4130, 0x4140, 0x4150, 0x4160, 0x4170};

struct Q4Bf16 : Bf16Dot {
  static constexpr size_t kBytes = GroupBytes(kFormatQ4);
  LLMD_INLINE void Expand(const uint8_t* group, int block, int col, VI* out) {
    VI word = LoadI(group + 128 + (block * 32 + col) * 4), table = LoadI(kNibbles);
    out[0] = _mm512_permutexvar_epi16(word, table);
    out[1] = _mm512_permutexvar_epi16(_mm512_srli_epi16(word, 4), table);
    out[2] = _mm512_permutexvar_epi16(_mm512_srli_epi16(word, 8), table);
    out[3] = _mm512_permutexvar_epi16(_mm512_srli_epi16(word, 12), table);
  }
  LLMD_INLINE gemm::Scales LoadScales(const uint8_t* group, int col) {
    return gemm::LoadQ4Scales(group, col);
  }
  LLMD_INLINE VF Finish(const gemm::Scales& w, const gemm::RowScales& x, VF s, VF acc) {
    return Fma(w.m, Set1(x.sum), Fma(w.d, s, acc));
  }
};

struct Q8Bf16 : Bf16Dot {
  static constexpr size_t kBytes = GroupBytes(kFormatQ8);
  LLMD_INLINE void Expand(const uint8_t* group, int block, int col, VI* out) {
    for (int j = 0; j < 4; ++j) {
      const uint8_t* bytes = group + 64 + ((block * 4 + j) * 32 + col) * 2;
      __m512bh pair = _mm512_cvtne2ps_pbh(LoadInt8(bytes + 16), LoadInt8(bytes));
      __builtin_memcpy(&out[j], &pair, sizeof(pair));
    }
  }
  LLMD_INLINE gemm::Scales LoadScales(const uint8_t* group, int col) {
    return gemm::LoadQ8Scales(group, col);
  }
  LLMD_INLINE VF Finish(const gemm::Scales& w, const gemm::RowScales& x, VF s, VF acc) {
    return Fma(w.d, s, acc);
  }
};

struct DenseBf16 : Bf16Dot {
  static constexpr size_t kBytes = GroupBytes(kFormatBf16);
  LLMD_INLINE void Expand(const uint8_t* group, int block, int col, VI* out) {
    for (int j = 0; j < 4; ++j) out[j] = LoadI(group + ((block * 4 + j) * 32 + col) * 4);
  }
  LLMD_INLINE gemm::Scales LoadScales(const uint8_t* group, int col) { return {Set1(0), Set1(0)}; }
  LLMD_INLINE VF Finish(const gemm::Scales& w, const gemm::RowScales& x, VF s, VF acc) {
    return Add(acc, s);
  }
};

double ProbeBf16(int iterations) {
  VF acc[12];
  __m512bh x = AsBf16(Set1I(0x3f803f80)), y = AsBf16(Set1I(0x00003f80));
  for (int i = 0; i < 12; ++i) acc[i] = Set1((float)i);
  for (int n = 0; n < iterations; ++n) {
    for (int i = 0; i < 12; ++i) acc[i] = _mm512_dpbf16_ps(acc[i], x, y);
  }
  VF sum = acc[0];
  for (int i = 1; i < 12; ++i) sum = Add(sum, acc[i]);
  volatile float sink = ReduceAdd(sum);
  (void)sink;
  return 12.0 * 32 * iterations;
}

}  // namespace

namespace llmd::engine::cpu {

void FillAvx512Bf16(KernelTable* table) {
  table->gemm[kArithmeticBf16Dot][kFormatBf16] = gemm::Gemm<DenseBf16>;
  table->gemm[kArithmeticBf16Dot][kFormatQ4] = gemm::Gemm<Q4Bf16>;
  table->gemm[kArithmeticBf16Dot][kFormatQ8] = gemm::Gemm<Q8Bf16>;
  table->probe[kArithmeticBf16Dot] = ProbeBf16;
}

}  // namespace llmd::engine::cpu
