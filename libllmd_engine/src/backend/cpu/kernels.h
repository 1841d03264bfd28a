// The table of kernels one instruction set offers. Plain data and C types only: the files that fill
// these tables are compiled with wider instruction sets than the rest, and any inline function they
// shared would leak wide code into it.
//
// Packed weights: tiles of 32 rows ("columns" of the product), each tile a run of groups of 32
// inputs, zero padded.
//   kF32   4096 B  f32  [k 32][col 32]
//   kBf16  2048 B  bf16 [k 32 / r][col 32][r]
//   kQ4     640 B  f16 d[32], f16 m[32], u32 [k 32 / 8][col 32]: eight 4-bit values a word; value =
//   q · d + m kQ8    1088 B  f16 d[32], int8 [k 32 / r][col 32][r]; value = q · d; for r = 4 stored
//   as q + 128
// r is how many inputs one 32-bit lane multiplies: 1 for f32, 2 for bf16 dot products, 4 for int8.
// Input k of eight stands in nibble NibbleOf(k, r) of its word.
//
// Activations are prepared per group: x [group][row][32 / r words], x_sum [group][row] = Σ x (times
// its scale for the integer forms). A 16-bit integer is 256 · high + low, both signed bytes: the
// high digits of a group, then the low ones.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace llmd::engine::cpu {

constexpr int kTileColumns = 32;
constexpr int kGroup = 32;
constexpr int kMaxRowsPerCall = 64;
constexpr int kAttentionChunk = 32;  // context tokens handled at a time
constexpr int kAttentionRows = 16;   // query rows handled at a time

enum Format { kFormatF32, kFormatBf16, kFormatQ4, kFormatQ8, kFormatCount };
enum Arithmetic {
  kArithmeticF32,
  kArithmeticBf16Dot,
  kArithmeticInt8,     // activations as 8-bit integers with a scale a group
  kArithmeticFixed16,  // the same with 16 bits, in two signed digits; quantised weights only
  kArithmeticCount
};

constexpr int NibbleOf(int k, int r) {
  return r == 1 ? k : r == 2 ? (k & 1) * 4 + k / 2 : (k & 3) * 2 + k / 4;
}
constexpr size_t GroupBytes(Format format) {
  return format == kFormatF32    ? 4096
         : format == kFormatBf16 ? 2048
         : format == kFormatQ4   ? 640
                                 : 1088;
}

constexpr bool HasActivationScale(Arithmetic arithmetic) {
  return arithmetic == kArithmeticInt8 || arithmetic == kArithmeticFixed16;
}
// Bytes of one prepared group of a row.
constexpr size_t PreparedGroupBytes(Arithmetic arithmetic) {
  return kGroup * (arithmetic == kArithmeticF32 ? 4u : arithmetic == kArithmeticInt8 ? 1u : 2u);
}

struct GemmCall {
  const uint8_t* tiles;  // tile_count tiles, one after another
  size_t tile_bytes;
  int tile_count;
  int groups;
  const void* x;  // at the first row of the call, group 0
  const float* x_sum;
  const float* x_scale;   // where HasActivationScale
  const int32_t* x_isum;  // the same: the sum of the integers
  int rows;               // at most kMaxRowsPerCall
  int row_stride;         // rows between groups
  float* out;             // [tile_count][rows][32]
  void* scratch;          // 4096 bytes, 64-byte aligned
};

// Activations of one row, 32 · groups floats (zero padded by the kernel from `cols`), to the
// prepared form.
struct PrepareCall {
  const float* x;
  int cols, groups, row_stride;
  int round_bf16;  // kArithmeticF32: round the values to bf16 first
  void* out;       // at this row, group 0
  float* x_sum;
  float* x_scale;
  int32_t* x_isum;
};

struct AttentionCall {
  const float* q;  // [rows][q_stride], at the first head of the kv head's group
  int rows, q_stride;
  int heads;                 // query heads that share the kv head
  int head_dim;              // a multiple of 16, at most 256
  const int32_t* positions;  // [rows], ascending
  const int32_t* block_table;
  int block_size;
  const char* pool;
  size_t block_stride, k_offset, v_offset;  // bytes; offsets of the layer's head within a block
  int kv_bf16;
  float scale;
  float* out;  // [rows][out_stride]
  int out_stride;
  float* scratch;  // AttentionScratchFloats(rows · heads, head_dim)
};

constexpr size_t AttentionScratchFloats(int query_rows, int head_dim) {
  return static_cast<size_t>(kAttentionChunk) * head_dim * 3 +
         static_cast<size_t>(query_rows) * (2 * head_dim + kAttentionChunk + 4) + 64;
}

struct KernelTable {
  void (*gemm[kArithmeticCount][kFormatCount])(
      const GemmCall*);  // null where the instruction set has none
  void (*prepare[kArithmeticCount])(const PrepareCall*);
  void (*rms_norm)(const float* x, const float* weight, float eps, int cols, float* out);
  void (*add)(const float* y, int count, float* out);
  // 16 gates then 16 ups to 16 results.
  void (*silu_mul)(const float* gate_up, float* out);
  // Turns `heads` heads of head_dim in place; table is cosines then sines, head_dim / 2 each.
  void (*rope)(float* x, const float* table, int heads, int head_dim);
  void (*to_bf16)(const float* x, int count, uint16_t* out);
  void (*attention)(const AttentionCall*);
  // Runs `iterations` rounds of the machine's multiply-add of that arithmetic; returns
  // multiply-adds done.
  double (*probe[kArithmeticCount])(int iterations);
};

// Each fills what it can do; the wider ones are laid over the narrower.
void FillScalar(KernelTable* table);
void FillAvx2(KernelTable* table);
void FillAvx512(KernelTable* table);
void FillAvx512Vnni(KernelTable* table);
void FillAvx512Bf16(KernelTable* table);

}  // namespace llmd::engine::cpu
