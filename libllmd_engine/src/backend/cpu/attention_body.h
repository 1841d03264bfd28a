// Paged causal attention with an online softmax, written once over the vectors of simd_*.h. The
// context is walked in chunks of kAttentionChunk tokens counted from position 0, whatever the block
// size and whatever else is in the batch, so that a row's result depends on that row alone.
// File-local; the including file has included ops_body.h.
#pragma once

namespace {
namespace attention {

using namespace simd;               // NOLINT: file-local by design
using namespace llmd::engine::cpu;  // NOLINT

constexpr float kMasked = -1e30f;

struct State {
  float* keys;     // [head_dim][chunk], so that a lane is a token
  float* values;   // [chunk][head_dim]
  float* rows;     // [chunk][head_dim], keys before they are turned
  float* query;    // [query row][head_dim], scaled
  float* sums;     // [query row][head_dim]
  float* weights;  // [query row][chunk]
  float* top;      // [query row] largest score so far
  float* norm;     // [query row] Σ e^(score − top)
  int query_rows;
};

State Lay(const AttentionCall* call) {
  State s;
  size_t chunk = (size_t)kAttentionChunk * call->head_dim;
  s.query_rows = call->rows * call->heads;
  s.keys = call->scratch;
  s.values = s.keys + chunk;
  s.rows = s.values + chunk;
  s.query = s.rows + chunk;
  s.sums = s.query + (size_t)s.query_rows * call->head_dim;
  s.weights = s.sums + (size_t)s.query_rows * call->head_dim;
  s.top = s.weights + (size_t)s.query_rows * kAttentionChunk;
  s.norm = s.top + s.query_rows;
  return s;
}

void Begin(const AttentionCall* call, const State& s) {
  for (int r = 0; r < call->rows; ++r) {
    for (int h = 0; h < call->heads; ++h) {
      const float* q = call->q + (size_t)r * call->q_stride + h * call->head_dim;
      int row = r * call->heads + h;
      for (int d = 0; d < call->head_dim; d += kLanes) {
        Store(s.query + row * call->head_dim + d, Mul(Load(q + d), Set1(call->scale)));
        Store(s.sums + row * call->head_dim + d, Set1(0));
      }
      s.top[row] = kMasked;
      s.norm[row] = 0;
    }
  }
}

LLMD_INLINE void LoadToken(const AttentionCall* call, const char* p, float* out) {
  for (int d = 0; d < call->head_dim; d += kLanes) {
    Store(out + d, call->kv_bf16 ? LoadBf16(p + d * 2) : Load((const float*)p + d));
  }
}

// Tokens first … first + count of keys and values as f32; keys turned, lanes beyond count zero.
void LoadChunk(const AttentionCall* call, const State& s, int first, int count) {
  size_t row_bytes = (size_t)call->head_dim * (call->kv_bf16 ? 2 : 4);
  int padded = (count + kLanes - 1) / kLanes * kLanes;
  for (int t = 0; t < count; ++t) {
    int position = first + t;
    const char* block =
        call->pool + (size_t)call->block_table[position / call->block_size] * call->block_stride;
    size_t offset = (size_t)(position % call->block_size) * row_bytes;
    LoadToken(call, block + call->k_offset + offset, s.rows + t * call->head_dim);
    LoadToken(call, block + call->v_offset + offset, s.values + t * call->head_dim);
  }
  for (int t = count; t < padded; ++t) {
    for (int d = 0; d < call->head_dim; d += kLanes)
      Store(s.rows + t * call->head_dim + d, Set1(0));
  }
  for (int t = 0; t < padded; t += kLanes) {
    for (int d = 0; d < call->head_dim; d += kLanes) {
      TransposeBlock(s.rows + t * call->head_dim + d, call->head_dim,
                     s.keys + d * kAttentionChunk + t, kAttentionChunk);
    }
  }
}

template <int kRows>
LLMD_INLINE void Scores(const AttentionCall* call, const State& s, int row) {
  for (int t = 0; t < kAttentionChunk; t += 2 * kLanes) {
    VF sum[kRows][2];
    for (int r = 0; r < kRows; ++r) sum[r][0] = sum[r][1] = Set1(0);
    for (int d = 0; d < call->head_dim; ++d) {
      VF k0 = Load(s.keys + d * kAttentionChunk + t),
         k1 = Load(s.keys + d * kAttentionChunk + t + kLanes);
      for (int r = 0; r < kRows; ++r) {
        VF q = Set1(s.query[(row + r) * call->head_dim + d]);
        sum[r][0] = Fma(q, k0, sum[r][0]);
        sum[r][1] = Fma(q, k1, sum[r][1]);
      }
    }
    for (int r = 0; r < kRows; ++r) {
      Store(s.weights + (row + r) * kAttentionChunk + t, sum[r][0]);
      Store(s.weights + (row + r) * kAttentionChunk + t + kLanes, sum[r][1]);
    }
  }
}

// Turns a row's scores into weights of the first `visible` tokens; returns what its sums so far are
// to be scaled by.
LLMD_INLINE float Softmax(const State& s, int row, int visible) {
  float* w = s.weights + row * kAttentionChunk;
  VF largest = Set1(s.top[row]);
  for (int t = 0; t < kAttentionChunk; t += kLanes) {
    largest = Max(largest, FirstLanes(visible - t, Load(w + t), Set1(kMasked)));
  }
  float top = ReduceMax(largest);
  VF total = Set1(0);
  for (int t = 0; t < kAttentionChunk; t += kLanes) {
    VF e = FirstLanes(visible - t, ops::Exp(Sub(Load(w + t), Set1(top))), Set1(0));
    Store(w + t, e);
    total = Add(total, e);
  }
  float lanes[kLanes];
  Store(lanes, ops::Exp(Set1(s.top[row] - top)));
  s.norm[row] = s.norm[row] * lanes[0] + ReduceAdd(total);
  s.top[row] = top;
  return lanes[0];
}

template <int kRows>
LLMD_INLINE void Accumulate(const AttentionCall* call, const State& s, int row, const float* scale,
                            int count) {
  for (int d = 0; d < call->head_dim; d += 2 * kLanes) {
    bool pair = d + kLanes < call->head_dim;
    VF sum[kRows][2];
    for (int r = 0; r < kRows; ++r) {
      float* from = s.sums + (row + r) * call->head_dim + d;
      sum[r][0] = Mul(Load(from), Set1(scale[r]));
      sum[r][1] = pair ? Mul(Load(from + kLanes), Set1(scale[r])) : Set1(0);
    }
    for (int t = 0; t < count; ++t) {
      const float* v = s.values + t * call->head_dim + d;
      VF v0 = Load(v), v1 = pair ? Load(v + kLanes) : Set1(0);
      for (int r = 0; r < kRows; ++r) {
        VF w = Set1(s.weights[(row + r) * kAttentionChunk + t]);
        sum[r][0] = Fma(w, v0, sum[r][0]);
        sum[r][1] = Fma(w, v1, sum[r][1]);
      }
    }
    for (int r = 0; r < kRows; ++r) {
      float* to = s.sums + (row + r) * call->head_dim + d;
      Store(to, sum[r][0]);
      if (pair) Store(to + kLanes, sum[r][1]);
    }
  }
}

template <int kRows>
void Rows(const AttentionCall* call, const State& s, int row, int first, int count) {
  float scale[kRows];
  Scores<kRows>(call, s, row);
  for (int r = 0; r < kRows; ++r) {
    int visible = call->positions[(row + r) / call->heads] + 1 - first;
    scale[r] = Softmax(s, row + r, visible < count ? visible : count);
  }
  Accumulate<kRows>(call, s, row, scale, count);
}

void End(const AttentionCall* call, const State& s) {
  for (int r = 0; r < call->rows; ++r) {
    for (int h = 0; h < call->heads; ++h) {
      int row = r * call->heads + h;
      float* out = call->out + (size_t)r * call->out_stride + h * call->head_dim;
      VF inverse = Set1(1.0f / s.norm[row]);
      for (int d = 0; d < call->head_dim; d += kLanes) {
        Store(out + d, Mul(Load(s.sums + row * call->head_dim + d), inverse));
      }
    }
  }
}

void Run(const AttentionCall* call) {
  State s = Lay(call);
  Begin(call, s);
  int context = call->positions[call->rows - 1] + 1;
  for (int first = 0; first < context; first += kAttentionChunk) {
    int count = context - first < kAttentionChunk ? context - first : kAttentionChunk;
    LoadChunk(call, s, first, count);
    int row = 0;
    // Rows whose position lies before the chunk see nothing of it.
    while (row < s.query_rows && call->positions[row / call->heads] < first) ++row;
    for (; row + 4 <= s.query_rows; row += 4) Rows<4>(call, s, row, first, count);
    for (; row + 2 <= s.query_rows; row += 2) Rows<2>(call, s, row, first, count);
    if (row < s.query_rows) Rows<1>(call, s, row, first, count);
  }
  End(call, s);
}

}  // namespace attention

namespace ops {

void Fill(KernelTable* table) {
  table->prepare[kArithmeticF32] = PrepareF32;
  table->prepare[kArithmeticBf16Dot] = PrepareBf16;
  table->prepare[kArithmeticInt8] = PrepareInt8;
  table->prepare[kArithmeticFixed16] = PrepareFixed16;
  table->rms_norm = RmsNorm;
  table->add = AddTo;
  table->silu_mul = SiluMul;
  table->rope = Rope;
  table->to_bf16 = ToBf16;
  table->attention = attention::Run;
  table->probe[kArithmeticF32] = ProbeF32;
}

}  // namespace ops
}  // namespace
