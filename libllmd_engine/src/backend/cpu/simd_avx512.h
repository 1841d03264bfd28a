// Vectors of 16 float lanes. Included only by files compiled for AVX-512 (F, BW, DQ, VL);
// everything is file-local.
#pragma once

#include <immintrin.h>
#include <stdint.h>

#define LLMD_INLINE static inline __attribute__((always_inline))

namespace {
namespace simd {

constexpr int kLanes = 16;
using VF = __m512;
using VI = __m512i;

LLMD_INLINE VF Load(const float* p) {
  return _mm512_loadu_ps(p);
}
LLMD_INLINE void Store(float* p, VF v) {
  _mm512_storeu_ps(p, v);
}
LLMD_INLINE VI LoadI(const void* p) {
  return _mm512_loadu_si512(p);
}
LLMD_INLINE void StoreI(void* p, VI v) {
  _mm512_storeu_si512(p, v);
}
LLMD_INLINE VF Set1(float v) {
  return _mm512_set1_ps(v);
}
LLMD_INLINE VI Set1I(int32_t v) {
  return _mm512_set1_epi32(v);
}
LLMD_INLINE VF Fma(VF a, VF b, VF c) {
  return _mm512_fmadd_ps(a, b, c);
}
LLMD_INLINE VF Add(VF a, VF b) {
  return _mm512_add_ps(a, b);
}
LLMD_INLINE VF Sub(VF a, VF b) {
  return _mm512_sub_ps(a, b);
}
LLMD_INLINE VF Mul(VF a, VF b) {
  return _mm512_mul_ps(a, b);
}
LLMD_INLINE VF Div(VF a, VF b) {
  return _mm512_div_ps(a, b);
}
LLMD_INLINE VF Max(VF a, VF b) {
  return _mm512_max_ps(a, b);
}
LLMD_INLINE VF Abs(VF a) {
  return _mm512_abs_ps(a);
}
LLMD_INLINE VI AddI(VI a, VI b) {
  return _mm512_add_epi32(a, b);
}
LLMD_INLINE VI SubI(VI a, VI b) {
  return _mm512_sub_epi32(a, b);
}
LLMD_INLINE VI AndI(VI a, VI b) {
  return _mm512_and_si512(a, b);
}
template <int kBits>
LLMD_INLINE VI ShiftRight(VI a) {
  return _mm512_srli_epi32(a, kBits);
}
template <int kBits>
LLMD_INLINE VI ShiftLeft(VI a) {
  return _mm512_slli_epi32(a, kBits);
}
LLMD_INLINE VF ToFloat(VI a) {
  return _mm512_cvtepi32_ps(a);
}
LLMD_INLINE VI RoundToInt(VF a) {
  return _mm512_cvtps_epi32(a);
}
LLMD_INLINE VF CastF(VI a) {
  return _mm512_castsi512_ps(a);
}
LLMD_INLINE VI CastI(VF a) {
  return _mm512_castps_si512(a);
}
LLMD_INLINE VF LoadHalf(const void* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p));
}
LLMD_INLINE VF LoadBf16(const void* p) {
  return CastF(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)), 16));
}
// The low 16 bits of each lane.
LLMD_INLINE void StoreLow16(void* p, VI v) {
  _mm256_storeu_si256((__m256i*)p, _mm512_cvtepi32_epi16(v));
}
LLMD_INLINE void StoreLow8(void* p, VI v) {
  _mm_storeu_si128((__m128i*)p, _mm512_cvtepi32_epi8(v));
}
LLMD_INLINE VF LoadInt8(const void* p) {
  return ToFloat(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p)));
}
// `value` where `x` > bound, else 0.
LLMD_INLINE VF ZeroUnlessGreater(VF x, float bound, VF value) {
  return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, Set1(bound), _CMP_GT_OQ), value);
}
// Lanes below `count` of a, the others of b.
LLMD_INLINE VF FirstLanes(int count, VF a, VF b) {
  __mmask16 mask = count >= 16 ? 0xffff : count <= 0 ? 0 : (__mmask16)((1u << count) - 1);
  return _mm512_mask_mov_ps(b, mask, a);
}
LLMD_INLINE float ReduceAdd(VF a) {
  return _mm512_reduce_add_ps(a);
}
LLMD_INLINE float ReduceMax(VF a) {
  return _mm512_reduce_max_ps(a);
}
LLMD_INLINE int32_t ReduceAddI(VI a) {
  return _mm512_reduce_add_epi32(a);
}

// Nibble kIndex of each lane as a float: a 16-entry table is looked up by the low four bits of each
// lane.
template <int kIndex>
LLMD_INLINE VF NibbleToFloat(VI word) {
  const VF table = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  return _mm512_permutexvar_ps(_mm512_srli_epi32(word, 4 * kIndex), table);
}

// Rows `in + i · in_stride` (16 of them, 16 floats each) become columns.
LLMD_INLINE void TransposeBlock(const float* in, int in_stride, float* out, int out_stride) {
  __m512 r[16], t[16];
  for (int i = 0; i < 16; ++i) r[i] = Load(in + i * in_stride);
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    r[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(t[i]), _mm512_castps_pd(t[i + 2])));
    r[i + 1] =
        _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(t[i]), _mm512_castps_pd(t[i + 2])));
    r[i + 2] = _mm512_castpd_ps(
        _mm512_unpacklo_pd(_mm512_castps_pd(t[i + 1]), _mm512_castps_pd(t[i + 3])));
    r[i + 3] = _mm512_castpd_ps(
        _mm512_unpackhi_pd(_mm512_castps_pd(t[i + 1]), _mm512_castps_pd(t[i + 3])));
  }
  for (int i = 0; i < 4; ++i) {
    __m512 a = _mm512_shuffle_f32x4(r[i], r[i + 4], 0x88),
           b = _mm512_shuffle_f32x4(r[i], r[i + 4], 0xdd);
    __m512 c = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0x88),
           d = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0xdd);
    t[i] = _mm512_shuffle_f32x4(a, c, 0x88);
    t[i + 8] = _mm512_shuffle_f32x4(a, c, 0xdd);
    t[i + 4] = _mm512_shuffle_f32x4(b, d, 0x88);
    t[i + 12] = _mm512_shuffle_f32x4(b, d, 0xdd);
  }
  for (int i = 0; i < 16; ++i) Store(out + i * out_stride, t[i]);
}

}  // namespace simd
}  // namespace
