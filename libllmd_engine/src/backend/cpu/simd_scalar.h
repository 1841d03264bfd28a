// Eight float lanes as a plain array: what every compiler understands, and the reference the others
// are tested against.
#pragma once

#include <stdint.h>

#define LLMD_INLINE static inline __attribute__((always_inline))

namespace {
namespace simd {

constexpr int kLanes = 8;
struct VF {
  float v[kLanes];
};
struct VI {
  int32_t v[kLanes];
};

#define LLMD_EACH for (int i = 0; i < kLanes; ++i)

LLMD_INLINE VF Load(const float* p) {
  VF r;
  LLMD_EACH r.v[i] = p[i];
  return r;
}
LLMD_INLINE void Store(float* p, VF a) {
  LLMD_EACH p[i] = a.v[i];
}
LLMD_INLINE VI LoadI(const void* p) {
  VI r;
  __builtin_memcpy(&r, p, sizeof(r));
  return r;
}
LLMD_INLINE void StoreI(void* p, VI a) {
  __builtin_memcpy(p, &a, sizeof(a));
}
LLMD_INLINE VF Set1(float x) {
  VF r;
  LLMD_EACH r.v[i] = x;
  return r;
}
LLMD_INLINE VI Set1I(int32_t x) {
  VI r;
  LLMD_EACH r.v[i] = x;
  return r;
}
LLMD_INLINE VF Fma(VF a, VF b, VF c) {
  LLMD_EACH c.v[i] = a.v[i] * b.v[i] + c.v[i];
  return c;
}
LLMD_INLINE VF Add(VF a, VF b) {
  LLMD_EACH a.v[i] += b.v[i];
  return a;
}
LLMD_INLINE VF Sub(VF a, VF b) {
  LLMD_EACH a.v[i] -= b.v[i];
  return a;
}
LLMD_INLINE VF Mul(VF a, VF b) {
  LLMD_EACH a.v[i] *= b.v[i];
  return a;
}
LLMD_INLINE VF Div(VF a, VF b) {
  LLMD_EACH a.v[i] /= b.v[i];
  return a;
}
LLMD_INLINE VF Max(VF a, VF b) {
  LLMD_EACH a.v[i] = a.v[i] > b.v[i] ? a.v[i] : b.v[i];
  return a;
}
LLMD_INLINE VF Abs(VF a) {
  LLMD_EACH a.v[i] = __builtin_fabsf(a.v[i]);
  return a;
}
LLMD_INLINE VI AddI(VI a, VI b) {
  LLMD_EACH a.v[i] = (int32_t)((uint32_t)a.v[i] + (uint32_t)b.v[i]);
  return a;
}
LLMD_INLINE VI SubI(VI a, VI b) {
  LLMD_EACH a.v[i] = (int32_t)((uint32_t)a.v[i] - (uint32_t)b.v[i]);
  return a;
}
LLMD_INLINE VI AndI(VI a, VI b) {
  LLMD_EACH a.v[i] &= b.v[i];
  return a;
}
template <int kBits>
LLMD_INLINE VI ShiftRight(VI a) {
  LLMD_EACH a.v[i] = (int32_t)((uint32_t)a.v[i] >> kBits);
  return a;
}
template <int kBits>
LLMD_INLINE VI ShiftLeft(VI a) {
  LLMD_EACH a.v[i] = (int32_t)((uint32_t)a.v[i] << kBits);
  return a;
}
LLMD_INLINE VF ToFloat(VI a) {
  VF r;
  LLMD_EACH r.v[i] = (float)a.v[i];
  return r;
}
// To nearest even, for |x| < 2^22: adding 1.5 · 2^23 leaves no room for a fraction.
LLMD_INLINE VI RoundToInt(VF a) {
  VI r;
  LLMD_EACH {
    float shifted = a.v[i] + 12582912.0f;
    r.v[i] = (int32_t)(shifted - 12582912.0f);
  }
  return r;
}
LLMD_INLINE VF CastF(VI a) {
  VF r;
  __builtin_memcpy(&r, &a, sizeof(r));
  return r;
}
LLMD_INLINE VI CastI(VF a) {
  VI r;
  __builtin_memcpy(&r, &a, sizeof(r));
  return r;
}
LLMD_INLINE VF LoadHalf(const void* p) {
  uint16_t half[kLanes];
  __builtin_memcpy(half, p, sizeof(half));
  VF r;
  LLMD_EACH {
    // Shifted into place the exponent is 112 too low; the multiplication mends it and normalises
    // subnormals.
    uint32_t bits = (uint32_t)(half[i] & 0x7fff) << 13;
    float magnitude;
    __builtin_memcpy(&magnitude, &bits, 4);
    magnitude *= 0x1p112f;
    r.v[i] = half[i] & 0x8000 ? -magnitude : magnitude;
  }
  return r;
}
LLMD_INLINE VF LoadBf16(const void* p) {
  uint16_t half[kLanes];
  __builtin_memcpy(half, p, sizeof(half));
  VI r;
  LLMD_EACH r.v[i] = (int32_t)((uint32_t)half[i] << 16);
  return CastF(r);
}
LLMD_INLINE void StoreLow16(void* p, VI a) {
  uint16_t half[kLanes];
  LLMD_EACH half[i] = (uint16_t)a.v[i];
  __builtin_memcpy(p, half, sizeof(half));
}
LLMD_INLINE void StoreLow8(void* p, VI a) {
  LLMD_EACH((int8_t*)p)[i] = (int8_t)a.v[i];
}
LLMD_INLINE VF LoadInt8(const void* p) {
  VF r;
  LLMD_EACH r.v[i] = (float)((const int8_t*)p)[i];
  return r;
}
LLMD_INLINE VF ZeroUnlessGreater(VF x, float bound, VF value) {
  LLMD_EACH value.v[i] = x.v[i] > bound ? value.v[i] : 0.0f;
  return value;
}
LLMD_INLINE VF FirstLanes(int count, VF a, VF b) {
  LLMD_EACH b.v[i] = i < count ? a.v[i] : b.v[i];
  return b;
}
LLMD_INLINE float ReduceAdd(VF a) {
  return ((a.v[0] + a.v[4]) + (a.v[2] + a.v[6])) + ((a.v[1] + a.v[5]) + (a.v[3] + a.v[7]));
}
LLMD_INLINE float ReduceMax(VF a) {
  float r = a.v[0];
  LLMD_EACH r = a.v[i] > r ? a.v[i] : r;
  return r;
}
LLMD_INLINE int32_t ReduceAddI(VI a) {
  int32_t r = 0;
  LLMD_EACH r += a.v[i];
  return r;
}

template <int kIndex>
LLMD_INLINE VF NibbleToFloat(VI word) {
  VF r;
  LLMD_EACH r.v[i] = (float)((uint32_t)word.v[i] >> (4 * kIndex) & 15);
  return r;
}

LLMD_INLINE void TransposeBlock(const float* in, int in_stride, float* out, int out_stride) {
  for (int r = 0; r < kLanes; ++r) {
    for (int c = 0; c < kLanes; ++c) out[c * out_stride + r] = in[r * in_stride + c];
  }
}

#undef LLMD_EACH

}  // namespace simd
}  // namespace
