// Everything of a step but the matrix products, written once over the vectors of simd_*.h.
// File-local; the including file has included one simd_*.h and kernels.h.
#pragma once

namespace {
namespace ops {

using namespace simd;               // NOLINT: file-local by design
using namespace llmd::engine::cpu;  // NOLINT

// e^x to about 2 ulp for x in [-87, 88]; 0 below. Cody–Waite reduction and a degree-6 polynomial.
LLMD_INLINE VF Exp(VF x) {
  VF clamped = Max(x, Set1(-87.0f));
  VF n = ToFloat(RoundToInt(Mul(clamped, Set1(1.44269504f))));
  VF r = Fma(n, Set1(-0.693359375f), clamped);
  r = Fma(n, Set1(2.12194440e-4f), r);
  VF p = Set1(1.0f / 720);
  p = Fma(p, r, Set1(1.0f / 120));
  p = Fma(p, r, Set1(1.0f / 24));
  p = Fma(p, r, Set1(1.0f / 6));
  p = Fma(p, r, Set1(0.5f));
  p = Fma(p, r, Set1(1.0f));
  p = Fma(p, r, Set1(1.0f));
  VI scaled = AddI(CastI(p), ShiftLeft<23>(RoundToInt(n)));
  return ZeroUnlessGreater(x, -87.0f, CastF(scaled));
}

// The bf16 nearest to each lane, in the high half of the lane.
LLMD_INLINE VI RoundToBf16(VF x) {
  VI bits = CastI(x);
  VI odd = AndI(ShiftRight<16>(bits), Set1I(1));
  return AndI(AddI(bits, AddI(odd, Set1I(0x7fff))), Set1I((int32_t)0xffff0000));
}

void RmsNorm(const float* x, const float* weight, float eps, int cols, float* out) {
  VF sum = Set1(0);
  int i = 0;
  for (; i + kLanes <= cols; i += kLanes) {
    VF v = Load(x + i);
    sum = Fma(v, v, sum);
  }
  float total = ReduceAdd(sum);
  for (; i < cols; ++i) total += x[i] * x[i];
  float scale = 1.0f / __builtin_sqrtf(total / (float)cols + eps);
  for (i = 0; i + kLanes <= cols; i += kLanes)
    Store(out + i, Mul(Mul(Load(x + i), Set1(scale)), Load(weight + i)));
  for (; i < cols; ++i) out[i] = x[i] * scale * weight[i];
}

void AddTo(const float* y, int count, float* out) {
  int i = 0;
  for (; i + kLanes <= count; i += kLanes) Store(out + i, Add(Load(out + i), Load(y + i)));
  for (; i < count; ++i) out[i] += y[i];
}

void SiluMul(const float* gate_up, float* out) {
  for (int i = 0; i < 16; i += kLanes) {
    VF gate = Load(gate_up + i);
    // The clamp keeps e^-g finite; silu is 0 to f32 there anyway.
    VF e = Exp(Sub(Set1(0), Max(gate, Set1(-86.0f))));
    Store(out + i, Mul(Div(gate, Add(Set1(1), e)), Load(gate_up + 16 + i)));
  }
}

void Rope(float* x, const float* table, int heads, int head_dim) {
  int half = head_dim / 2;
  for (int h = 0; h < heads; ++h, x += head_dim) {
    for (int i = 0; i < half; i += kLanes) {
      if (i + kLanes <= half) {
        VF a = Load(x + i), b = Load(x + half + i), c = Load(table + i), s = Load(table + half + i);
        Store(x + i, Sub(Mul(a, c), Mul(b, s)));
        Store(x + half + i, Add(Mul(b, c), Mul(a, s)));
        continue;
      }
      for (int j = i; j < half; ++j) {
        float a = x[j], b = x[half + j];
        x[j] = a * table[j] - b * table[half + j];
        x[half + j] = b * table[j] + a * table[half + j];
      }
    }
  }
}

void ToBf16(const float* x, int count, uint16_t* out) {
  int i = 0;
  for (; i + kLanes <= count; i += kLanes)
    StoreLow16(out + i, ShiftRight<16>(RoundToBf16(Load(x + i))));
  if (i == count) return;
  float tail[kLanes] = {};
  uint16_t bits[kLanes];
  for (int j = i; j < count; ++j) tail[j - i] = x[j];
  StoreLow16(bits, ShiftRight<16>(RoundToBf16(Load(tail))));
  for (int j = i; j < count; ++j) out[j] = bits[j - i];
}

// The 32 inputs of group g, zero beyond the row's end.
LLMD_INLINE const float* GroupInputs(const PrepareCall* call, int g, float* padded) {
  int left = call->cols - g * kGroup;
  if (left >= kGroup) return call->x + (size_t)g * kGroup;
  for (int i = 0; i < kGroup; ++i) padded[i] = i < left ? call->x[g * kGroup + i] : 0;
  return padded;
}

void PrepareF32(const PrepareCall* call) {
  float padded[kGroup];
  for (int g = 0; g < call->groups; ++g) {
    const float* x = GroupInputs(call, g, padded);
    float* out = (float*)call->out + (size_t)g * call->row_stride * kGroup;
    VF sum = Set1(0);
    for (int i = 0; i < kGroup; i += kLanes) {
      VF v = Load(x + i);
      if (call->round_bf16) v = CastF(RoundToBf16(v));
      Store(out + i, v);
      sum = Add(sum, v);
    }
    call->x_sum[(size_t)g * call->row_stride] = ReduceAdd(sum);
  }
}

void PrepareBf16(const PrepareCall* call) {
  float padded[kGroup];
  for (int g = 0; g < call->groups; ++g) {
    const float* x = GroupInputs(call, g, padded);
    uint16_t* out = (uint16_t*)call->out + (size_t)g * call->row_stride * kGroup;
    VF sum = Set1(0);
    for (int i = 0; i < kGroup; i += kLanes) {
      VI rounded = RoundToBf16(Load(x + i));
      StoreLow16(out + i, ShiftRight<16>(rounded));
      sum = Add(sum, CastF(rounded));
    }
    call->x_sum[(size_t)g * call->row_stride] = ReduceAdd(sum);
  }
}

void PrepareInt8(const PrepareCall* call) {
  float padded[kGroup];
  for (int g = 0; g < call->groups; ++g) {
    const float* x = GroupInputs(call, g, padded);
    size_t at = (size_t)g * call->row_stride;
    int8_t* out = (int8_t*)call->out + at * kGroup;
    VF largest = Set1(0);
    for (int i = 0; i < kGroup; i += kLanes) largest = Max(largest, Abs(Load(x + i)));
    float top = ReduceMax(largest);
    float inverse = top > 1e-30f ? 127.0f / top : 0;
    VI sum = Set1I(0);
    for (int i = 0; i < kGroup; i += kLanes) {
      VI q = RoundToInt(Mul(Load(x + i), Set1(inverse)));
      StoreLow8(out + i, q);
      sum = AddI(sum, q);
    }
    call->x_scale[at] = top > 1e-30f ? top / 127.0f : 0;
    call->x_isum[at] = ReduceAddI(sum);
    call->x_sum[at] = call->x_scale[at] * (float)call->x_isum[at];
  }
}

// q = 256 · high + low of at most 127 · 256 in size, so that both digits are signed bytes.
void PrepareFixed16(const PrepareCall* call) {
  float padded[kGroup];
  for (int g = 0; g < call->groups; ++g) {
    const float* x = GroupInputs(call, g, padded);
    size_t at = (size_t)g * call->row_stride;
    int8_t* out = (int8_t*)call->out + at * kGroup * 2;
    VF largest = Set1(0);
    for (int i = 0; i < kGroup; i += kLanes) largest = Max(largest, Abs(Load(x + i)));
    float top = ReduceMax(largest);
    float inverse = top > 1e-30f ? 32512.0f / top : 0;
    VI sum = Set1I(0);
    for (int i = 0; i < kGroup; i += kLanes) {
      VI q = RoundToInt(Mul(Load(x + i), Set1(inverse)));
      VI high = SubI(ShiftRight<8>(AddI(q, Set1I(32768 + 128))), Set1I(128));
      StoreLow8(out + i, high);
      StoreLow8(out + kGroup + i, SubI(q, ShiftLeft<8>(high)));
      sum = AddI(sum, q);
    }
    call->x_scale[at] = top > 1e-30f ? top / 32512.0f : 0;
    call->x_isum[at] = ReduceAddI(sum);
    call->x_sum[at] = call->x_scale[at] * (float)call->x_isum[at];
  }
}

// Independent chains of multiply-adds: what the machine can do at best.
double ProbeF32(int iterations) {
  VF acc[12], x = Set1(1.0f + 1e-7f), y = Set1(1e-9f);
  for (int i = 0; i < 12; ++i) acc[i] = Set1((float)i);
  for (int n = 0; n < iterations; ++n) {
    for (int i = 0; i < 12; ++i) acc[i] = Fma(acc[i], x, y);
  }
  VF sum = acc[0];
  for (int i = 1; i < 12; ++i) sum = Add(sum, acc[i]);
  volatile float sink = ReduceAdd(sum);
  (void)sink;
  return 12.0 * kLanes * iterations;
}

}  // namespace ops
}  // namespace
