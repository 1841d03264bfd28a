// Vectors of 8 float lanes. Included only by files compiled for AVX2, FMA and F16C; everything is
// file-local.
#pragma once

#include <immintrin.h>
#include <stdint.h>

#define LLMD_INLINE static inline __attribute__((always_inline))

namespace {
namespace simd {

constexpr int kLanes = 8;
using VF = __m256;
using VI = __m256i;

LLMD_INLINE VF Load(const float* p) {
  return _mm256_loadu_ps(p);
}
LLMD_INLINE void Store(float* p, VF v) {
  _mm256_storeu_ps(p, v);
}
LLMD_INLINE VI LoadI(const void* p) {
  return _mm256_loadu_si256((const __m256i*)p);
}
LLMD_INLINE void StoreI(void* p, VI v) {
  _mm256_storeu_si256((__m256i*)p, v);
}
LLMD_INLINE VF Set1(float v) {
  return _mm256_set1_ps(v);
}
LLMD_INLINE VI Set1I(int32_t v) {
  return _mm256_set1_epi32(v);
}
LLMD_INLINE VF Fma(VF a, VF b, VF c) {
  return _mm256_fmadd_ps(a, b, c);
}
LLMD_INLINE VF Add(VF a, VF b) {
  return _mm256_add_ps(a, b);
}
LLMD_INLINE VF Sub(VF a, VF b) {
  return _mm256_sub_ps(a, b);
}
LLMD_INLINE VF Mul(VF a, VF b) {
  return _mm256_mul_ps(a, b);
}
LLMD_INLINE VF Div(VF a, VF b) {
  return _mm256_div_ps(a, b);
}
LLMD_INLINE VF Max(VF a, VF b) {
  return _mm256_max_ps(a, b);
}
LLMD_INLINE VF Abs(VF a) {
  return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a);
}
LLMD_INLINE VI AddI(VI a, VI b) {
  return _mm256_add_epi32(a, b);
}
LLMD_INLINE VI SubI(VI a, VI b) {
  return _mm256_sub_epi32(a, b);
}
LLMD_INLINE VI AndI(VI a, VI b) {
  return _mm256_and_si256(a, b);
}
template <int kBits>
LLMD_INLINE VI ShiftRight(VI a) {
  return _mm256_srli_epi32(a, kBits);
}
template <int kBits>
LLMD_INLINE VI ShiftLeft(VI a) {
  return _mm256_slli_epi32(a, kBits);
}
LLMD_INLINE VF ToFloat(VI a) {
  return _mm256_cvtepi32_ps(a);
}
LLMD_INLINE VI RoundToInt(VF a) {
  return _mm256_cvtps_epi32(a);
}
LLMD_INLINE VF CastF(VI a) {
  return _mm256_castsi256_ps(a);
}
LLMD_INLINE VI CastI(VF a) {
  return _mm256_castps_si256(a);
}
LLMD_INLINE VF LoadHalf(const void* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p));
}
LLMD_INLINE VF LoadBf16(const void* p) {
  return CastF(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p)), 16));
}
LLMD_INLINE void StoreLow16(void* p, VI v) {
  VI packed =
      _mm256_packus_epi32(_mm256_and_si256(v, _mm256_set1_epi32(0xffff)), _mm256_setzero_si256());
  packed = _mm256_permute4x64_epi64(packed, 0x08);
  _mm_storeu_si128((__m128i*)p, _mm256_castsi256_si128(packed));
}
LLMD_INLINE void StoreLow8(void* p, VI v) {
  VI bytes = _mm256_shuffle_epi8(
      v, _mm256_setr_epi8(0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 0, 4, 8, 12,
                          -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1));
  int32_t low = _mm256_extract_epi32(bytes, 0), high = _mm256_extract_epi32(bytes, 4);
  __builtin_memcpy(p, &low, 4);
  __builtin_memcpy((char*)p + 4, &high, 4);
}
LLMD_INLINE VF LoadInt8(const void* p) {
  return ToFloat(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)p)));
}
LLMD_INLINE VF ZeroUnlessGreater(VF x, float bound, VF value) {
  return _mm256_and_ps(_mm256_cmp_ps(x, Set1(bound), _CMP_GT_OQ), value);
}
LLMD_INLINE VF FirstLanes(int count, VF a, VF b) {
  VI mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  return _mm256_blendv_ps(b, a, CastF(mask));
}
LLMD_INLINE float ReduceAdd(VF a) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
LLMD_INLINE float ReduceMax(VF a) {
  __m128 s = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  s = _mm_max_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}
LLMD_INLINE int32_t ReduceAddI(VI a) {
  __m128i s = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
  s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}

template <int kIndex>
LLMD_INLINE VF NibbleToFloat(VI word) {
  return ToFloat(AndI(_mm256_srli_epi32(word, 4 * kIndex), Set1I(15)));
}

LLMD_INLINE void TransposeBlock(const float* in, int in_stride, float* out, int out_stride) {
  __m256 r[8], t[8];
  for (int i = 0; i < 8; ++i) r[i] = Load(in + i * in_stride);
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
  }
  for (int i = 0; i < 8; i += 4) {
    r[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
    r[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
    r[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
    r[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
  }
  for (int i = 0; i < 4; ++i) {
    Store(out + i * out_stride, _mm256_permute2f128_ps(r[i], r[i + 4], 0x20));
    Store(out + (i + 4) * out_stride, _mm256_permute2f128_ps(r[i], r[i + 4], 0x31));
  }
}

}  // namespace simd
}  // namespace
