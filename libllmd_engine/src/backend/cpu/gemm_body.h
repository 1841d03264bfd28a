// The matrix kernels, written once over the vectors of simd_*.h and compiled once per instruction
// set. Everything is file-local. Every path (few rows straight from the packed weights, many rows
// through an expanded group) adds up a row's products in the same order, k ascending within a group
// and groups ascending, so that a row's result does not depend on how many rows share the call.
//
// A quantised group is summed as d · Σ x q + m · Σ x: the small integers q are exact in every
// arithmetic.
//
// The including file has included one simd_*.h and kernels.h.
#pragma once

namespace {
namespace gemm {

using namespace simd;               // NOLINT: file-local by design
using namespace llmd::engine::cpu;  // NOLINT

// Rows of one pass over an expanded group: as many accumulators as the registers hold.
constexpr int kRowBlock = kLanes == 16 ? 8 : 4;
constexpr int kDirectRows = 4;

struct Scales {
  VF d, m;
};
// What the activations say of one row in one group.
struct RowScales {
  float sum, scale;
  int32_t isum;
};

LLMD_INLINE VF LoadWord(const uint32_t* p) {
  float f;
  __builtin_memcpy(&f, p, 4);
  return Set1(f);
}

// f32 products; one input a lane.
struct F32Dot {
  static constexpr int kSteps = 32, kRowWords = 32;
  using Acc = VF;
  using Wt = VF;
  LLMD_INLINE Acc Zero() { return Set1(0); }
  LLMD_INLINE Acc Dot(Acc s, Wt w, const uint32_t* x) { return Fma(LoadWord(x), w, s); }
  LLMD_INLINE Wt LoadW(const void* p) { return Load((const float*)p); }
  LLMD_INLINE void StoreW(void* p, Wt w) { Store((float*)p, w); }
};

LLMD_INLINE Scales LoadQ4Scales(const uint8_t* group, int col) {
  return {LoadHalf(group + col * 2), LoadHalf(group + 64 + col * 2)};
}
LLMD_INLINE Scales LoadQ8Scales(const uint8_t* group, int col) {
  return {LoadHalf(group + col * 2), Set1(0)};
}

struct Q4F32 : F32Dot {
  static constexpr size_t kBytes = GroupBytes(kFormatQ4);
  LLMD_INLINE void Expand(const uint8_t* group, int block, int col, VF* out) {
    VI word = LoadI(group + 128 + (block * 32 + col) * 4);
    out[0] = NibbleToFloat<0>(word);
    out[1] = NibbleToFloat<1>(word);
    out[2] = NibbleToFloat<2>(word);
    out[3] = NibbleToFloat<3>(word);
    out[4] = NibbleToFloat<4>(word);
    out[5] = NibbleToFloat<5>(word);
    out[6] = NibbleToFloat<6>(word);
    out[7] = NibbleToFloat<7>(word);
  }
  LLMD_INLINE Scales LoadScales(const uint8_t* group, int col) { return LoadQ4Scales(group, col); }
  LLMD_INLINE VF Finish(const Scales& w, const RowScales& x, VF s, VF acc) {
    return Fma(w.m, Set1(x.sum), Fma(w.d, s, acc));
  }
};

struct Q8F32 : F32Dot {
  static constexpr size_t kBytes = GroupBytes(kFormatQ8);
  LLMD_INLINE void Expand(const uint8_t* group, int block, int col, VF* out) {
    for (int j = 0; j < 8; ++j) out[j] = LoadInt8(group + 64 + (block * 8 + j) * 32 + col);
  }
  LLMD_INLINE Scales LoadScales(const uint8_t* group, int col) { return LoadQ8Scales(group, col); }
  LLMD_INLINE VF Finish(const Scales& w, const RowScales& x, VF s, VF acc) {
    return Fma(w.d, s, acc);
  }
};

struct DenseF32 : F32Dot {
  static constexpr size_t kBytes = GroupBytes(kFormatF32);
  LLMD_INLINE void Expand(const uint8_t* group, int block, int col, VF* out) {
    for (int j = 0; j < 8; ++j) out[j] = Load((const float*)group + (block * 8 + j) * 32 + col);
  }
  LLMD_INLINE Scales LoadScales(const uint8_t* group, int col) { return {Set1(0), Set1(0)}; }
  LLMD_INLINE VF Finish(const Scales& w, const RowScales& x, VF s, VF acc) { return Add(acc, s); }
};

struct Bf16F32 : DenseF32 {
  static constexpr size_t kBytes = GroupBytes(kFormatBf16);
  LLMD_INLINE void Expand(const uint8_t* group, int block, int col, VF* out) {
    for (int j = 0; j < 8; ++j) out[j] = LoadBf16(group + ((block * 8 + j) * 32 + col) * 2);
  }
};

template <class P>
LLMD_INLINE const uint8_t* GroupAt(const GemmCall* call, int tile, int group) {
  return call->tiles + tile * call->tile_bytes + group * P::kBytes;
}
template <class P>
LLMD_INLINE const uint32_t* RowsAt(const GemmCall* call, int group, int row) {
  return (const uint32_t*)call->x + ((size_t)group * call->row_stride + row) * P::kRowWords;
}
LLMD_INLINE RowScales ScalesAt(const GemmCall* call, int group, int row) {
  size_t index = (size_t)group * call->row_stride + row;
  return {call->x_sum[index], call->x_scale ? call->x_scale[index] : 0,
          call->x_isum ? call->x_isum[index] : 0};
}

// Few rows: weights are expanded in registers and used at once. kVectors neighbouring vectors of
// columns from `col`, which may run on into the next tile.
template <class P, int kRows, int kVectors>
LLMD_INLINE void DirectColumns(const GemmCall* call, int col) {
  constexpr int kPer = P::kSteps / 4;
  VF acc[kRows][kVectors];
  for (int m = 0; m < kRows; ++m) {
    for (int v = 0; v < kVectors; ++v) acc[m][v] = Set1(0);
  }
  for (int g = 0; g < call->groups; ++g) {
    const uint8_t* groups[kVectors];
    for (int v = 0; v < kVectors; ++v) groups[v] = GroupAt<P>(call, (col + v * kLanes) / 32, g);
    const uint32_t* x = RowsAt<P>(call, g, 0);
    typename P::Acc s[kRows][kVectors];
    for (int m = 0; m < kRows; ++m) {
      for (int v = 0; v < kVectors; ++v) s[m][v] = P::Zero();
    }
#pragma GCC unroll 4
    for (int block = 0; block < 4; ++block) {
      typename P::Wt w[kVectors][kPer];
      for (int v = 0; v < kVectors; ++v) P::Expand(groups[v], block, (col + v * kLanes) % 32, w[v]);
#pragma GCC unroll 8
      for (int j = 0; j < kPer; ++j) {
        for (int m = 0; m < kRows; ++m) {
          for (int v = 0; v < kVectors; ++v)
            s[m][v] = P::Dot(s[m][v], w[v][j], x + m * P::kRowWords + block * kPer + j);
        }
      }
    }
    for (int v = 0; v < kVectors; ++v) {
      Scales scales = P::LoadScales(groups[v], (col + v * kLanes) % 32);
      for (int m = 0; m < kRows; ++m)
        acc[m][v] = P::Finish(scales, ScalesAt(call, g, m), s[m][v], acc[m][v]);
    }
  }
  for (int v = 0; v < kVectors; ++v) {
    int column = col + v * kLanes;
    for (int m = 0; m < kRows; ++m)
      Store(call->out + (column / 32 * kRows + m) * 32 + column % 32, acc[m][v]);
  }
}

template <class P, int kRows, int kVectors>
void Direct(const GemmCall* call) {
  int columns = call->tile_count * kTileColumns, col = 0;
  for (; col + kVectors * kLanes <= columns; col += kVectors * kLanes)
    DirectColumns<P, kRows, kVectors>(call, col);
  for (; col < columns; col += 2 * kLanes) DirectColumns<P, kRows, 2>(call, col);
}

// Rows `row`… of one group whose weights stand expanded in the scratch; `out` keeps the running
// sums.
template <class P, int kRows>
void ExpandedRows(const GemmCall* call, const uint8_t* group, int g, int row, float* out) {
  const uint32_t* x = RowsAt<P>(call, g, row);
  for (int col = 0; col < kTileColumns; col += 2 * kLanes) {
    const float* w = (const float*)call->scratch + col;
    typename P::Acc s[kRows][2];
    for (int m = 0; m < kRows; ++m) s[m][0] = s[m][1] = P::Zero();
#pragma GCC unroll 4
    for (int k = 0; k < P::kSteps; ++k) {
      typename P::Wt w0 = P::LoadW(w + k * 32), w1 = P::LoadW(w + k * 32 + kLanes);
      for (int m = 0; m < kRows; ++m) {
        s[m][0] = P::Dot(s[m][0], w0, x + m * P::kRowWords + k);
        s[m][1] = P::Dot(s[m][1], w1, x + m * P::kRowWords + k);
      }
    }
    Scales scales0 = P::LoadScales(group, col), scales1 = P::LoadScales(group, col + kLanes);
    for (int m = 0; m < kRows; ++m) {
      RowScales of_row = ScalesAt(call, g, row + m);
      float* to = out + m * 32 + col;
      Store(to, P::Finish(scales0, of_row, s[m][0], Load(to)));
      Store(to + kLanes, P::Finish(scales1, of_row, s[m][1], Load(to + kLanes)));
    }
  }
}

template <class P>
LLMD_INLINE void ExpandGroup(const uint8_t* group, void* scratch) {
  constexpr int kPer = P::kSteps / 4;
  for (int block = 0; block < 4; ++block) {
    for (int col = 0; col < kTileColumns; col += kLanes) {
      typename P::Wt w[kPer];
      P::Expand(group, block, col, w);
      for (int j = 0; j < kPer; ++j)
        P::StoreW((float*)scratch + (block * kPer + j) * 32 + col, w[j]);
    }
  }
}

// Two digits take two accumulators each.
template <class P>
constexpr int RowBlock() {
  return sizeof(typename P::Acc) > sizeof(VF) ? kRowBlock / 2 : kRowBlock;
}

template <class P>
void ManyRows(const GemmCall* call) {
  constexpr int kBlock = RowBlock<P>();
  for (int tile = 0; tile < call->tile_count; ++tile) {
    float* out = call->out + (size_t)tile * call->rows * 32;
    for (int i = 0; i < call->rows * 32; i += kLanes) Store(out + i, Set1(0));
    for (int g = 0; g < call->groups; ++g) {
      const uint8_t* group = GroupAt<P>(call, tile, g);
      ExpandGroup<P>(group, call->scratch);
      int row = 0;
      for (; row + kBlock <= call->rows; row += kBlock) {
        ExpandedRows<P, kBlock>(call, group, g, row, out + row * 32);
      }
      if (kBlock > 4 && row + 4 <= call->rows) {
        ExpandedRows<P, 4>(call, group, g, row, out + row * 32);
        row += 4;
      }
      for (; row + 2 <= call->rows; row += 2)
        ExpandedRows<P, 2>(call, group, g, row, out + row * 32);
      if (row < call->rows) ExpandedRows<P, 1>(call, group, g, row, out + row * 32);
    }
  }
}

template <class P>
void Gemm(const GemmCall* call) {
  switch (call->rows) {
    case 1:
      return Direct<P, 1, 4>(call);
    case 2:
      return Direct<P, 2, 2>(call);
    case 3:
      return Direct<P, 3, 2>(call);
    case 4:
      return Direct<P, 4, 2>(call);
    default:
      return ManyRows<P>(call);
  }
}

// The including file defines, for int8, before this header:
//   DotNibble(s, w, x): s + Σ of four products of unsigned w bytes below 16 and signed x bytes, per
//   lane DotByte(s, w, x): the same for w = q + 128; the result is biased by 128 Σ x when
//   kByteDotBiased
#ifdef LLMD_HAS_INT8_DOT
// Activations in one signed byte, or in two: 256 · the first digit + the second. The sums are
// exact, and fit 32 bits: |Σ| ≤ 32 · 255 · 2^15.
template <int kDigits>
struct IntDot {
  static constexpr int kSteps = 8, kRowWords = 8 * kDigits;
  struct Acc {
    VI digit[kDigits];
  };
  using Wt = VI;
  LLMD_INLINE Acc Zero() {
    Acc s;
    for (int i = 0; i < kDigits; ++i) s.digit[i] = Set1I(0);
    return s;
  }
  LLMD_INLINE VI Broadcast(const uint32_t* x) {
    int32_t word;
    __builtin_memcpy(&word, x, 4);
    return Set1I(word);
  }
  LLMD_INLINE VI Value(const Acc& s) {
    return kDigits == 1 ? s.digit[0] : AddI(ShiftLeft<8>(s.digit[0]), s.digit[kDigits - 1]);
  }
  LLMD_INLINE Wt LoadW(const void* p) { return LoadI(p); }
  LLMD_INLINE void StoreW(void* p, Wt w) { StoreI(p, w); }
};

template <int kDigits>
struct Q4Int : IntDot<kDigits> {
  using Base = IntDot<kDigits>;
  using typename Base::Acc;
  static constexpr size_t kBytes = GroupBytes(kFormatQ4);
  LLMD_INLINE Acc Dot(Acc s, VI w, const uint32_t* x) {
    for (int i = 0; i < kDigits; ++i)
      s.digit[i] = DotNibble(s.digit[i], w, Base::Broadcast(x + 8 * i));
    return s;
  }
  LLMD_INLINE void Expand(const uint8_t* group, int block, int col, VI* out) {
    VI word = LoadI(group + 128 + (block * 32 + col) * 4);
    out[0] = AndI(word, Set1I(0x0f0f0f0f));
    out[1] = AndI(ShiftRight<4>(word), Set1I(0x0f0f0f0f));
  }
  LLMD_INLINE Scales LoadScales(const uint8_t* group, int col) { return LoadQ4Scales(group, col); }
  LLMD_INLINE VF Finish(const Scales& w, const RowScales& x, const Acc& s, VF acc) {
    VF scaled = Mul(w.d, Set1(x.scale));
    return Fma(w.m, Set1(x.sum), Fma(scaled, ToFloat(Base::Value(s)), acc));
  }
};

template <int kDigits>
struct Q8Int : IntDot<kDigits> {
  using Base = IntDot<kDigits>;
  using typename Base::Acc;
  static constexpr size_t kBytes = GroupBytes(kFormatQ8);
  LLMD_INLINE Acc Dot(Acc s, VI w, const uint32_t* x) {
    for (int i = 0; i < kDigits; ++i)
      s.digit[i] = DotByte(s.digit[i], w, Base::Broadcast(x + 8 * i));
    return s;
  }
  LLMD_INLINE void Expand(const uint8_t* group, int block, int col, VI* out) {
    for (int j = 0; j < 2; ++j) out[j] = LoadI(group + 64 + ((block * 2 + j) * 32 + col) * 4);
  }
  LLMD_INLINE Scales LoadScales(const uint8_t* group, int col) { return LoadQ8Scales(group, col); }
  LLMD_INLINE VF Finish(const Scales& w, const RowScales& x, const Acc& s, VF acc) {
    VI sum = Base::Value(s);
    if (kByteDotBiased) sum = SubI(sum, Set1I(128 * x.isum));
    return Fma(Mul(w.d, Set1(x.scale)), ToFloat(sum), acc);
  }
};

[[maybe_unused]] void FillFixed16Gemm(KernelTable* table) {
  table->gemm[kArithmeticFixed16][kFormatQ4] = Gemm<Q4Int<2>>;
  table->gemm[kArithmeticFixed16][kFormatQ8] = Gemm<Q8Int<2>>;
}

[[maybe_unused]] void FillInt8Gemm(KernelTable* table) {
  table->gemm[kArithmeticInt8][kFormatQ4] = Gemm<Q4Int<1>>;
  table->gemm[kArithmeticInt8][kFormatQ8] = Gemm<Q8Int<1>>;
}
#endif

[[maybe_unused]] void FillF32Gemm(KernelTable* table) {
  table->gemm[kArithmeticF32][kFormatF32] = Gemm<DenseF32>;
  table->gemm[kArithmeticF32][kFormatBf16] = Gemm<Bf16F32>;
  table->gemm[kArithmeticF32][kFormatQ4] = Gemm<Q4F32>;
  table->gemm[kArithmeticF32][kFormatQ8] = Gemm<Q8F32>;
}

}  // namespace gemm
}  // namespace
