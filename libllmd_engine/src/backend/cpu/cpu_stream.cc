#include "backend/cpu/cpu_stream.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "backend/cpu/cpu_backend.h"

namespace llmd::engine::cpu {
namespace {

// Loops over fewer elements than this run on the caller: waking a thread costs about as much.
constexpr int kInlineElements = 4096;
constexpr int kTilesPerCall = 2;

template <typename T>
T* At(const Tensor& tensor, int64_t row = 0) {
  return reinterpret_cast<T*>(tensor.buffer->address() + tensor.offset_bytes) + row * tensor.stride;
}

int RowGrain(int64_t cols) {
  return static_cast<int>(std::max<int64_t>(1, kInlineElements / std::max<int64_t>(cols, 1)));
}

// Scratch only grows; its pages are touched as they are needed.
void Reserve(std::unique_ptr<HostBuffer>& buffer, size_t bytes) {
  if (buffer != nullptr && buffer->size_bytes() >= bytes) return;
  auto made = HostBuffer::Create(bytes + bytes / 4);
  LLMD_CHECK(made.ok());
  buffer = std::move(*made);
}

// Byte offset of layer, K (0) or V (1) and head within a block.
size_t HeadOffset(const KvGeometry& g, int layer, int which, int head) {
  size_t runs = (static_cast<size_t>(layer) * 2 + which) * g.kv_heads + head;
  return runs * g.block_size * g.head_dim * g.element_bytes;
}

}  // namespace

CpuStream::CpuStream(CpuBackend& backend)
    : backend_(backend),
      kernels_(backend.kernels()),
      attention_scratch_(backend.settings().threads) {}

void CpuStream::CopyIn(std::span<const std::byte> host, Tensor to) {
  if (!host.empty()) std::memcpy(At<std::byte>(to), host.data(), host.size());
}

void CpuStream::CopyOut(Tensor from, std::span<std::byte> host) {
  if (!host.empty()) std::memcpy(host.data(), At<std::byte>(from), host.size());
}

void CpuStream::Embed(const Weight& table, Tensor tokens, Tensor out) {
  const auto& packed = static_cast<const PackedWeight&>(table);
  const auto* ids = At<int32_t>(tokens);
  backend_.pool().For(static_cast<int>(out.rows), RowGrain(out.cols), [&](int, int begin, int end) {
    for (int row = begin; row < end; ++row) {
      packed.Unpack(ids[row], {At<float>(out, row), static_cast<size_t>(out.cols)});
    }
  });
}

void CpuStream::RmsNorm(Tensor x, Tensor weight, float eps, Tensor out) {
  const auto* w = At<float>(weight);
  backend_.pool().For(static_cast<int>(x.rows), RowGrain(x.cols), [&](int, int begin, int end) {
    for (int row = begin; row < end; ++row) {
      kernels_.rms_norm(At<float>(x, row), w, eps, static_cast<int>(x.cols), At<float>(out, row));
    }
  });
}

void CpuStream::Prepare(const Tensor& x, Arithmetic arithmetic, int groups) {
  int rows = static_cast<int>(x.rows);
  size_t cells = static_cast<size_t>(rows) * groups;
  Reserve(prepared_.values, cells * kGroup * 4);
  for (auto* buffer : {&prepared_.sums, &prepared_.scales, &prepared_.isums})
    Reserve(*buffer, cells * 4);
  prepared_.rows = rows;
  prepared_.groups = groups;
  size_t bytes = PreparedGroupBytes(arithmetic);
  auto prepare = kernels_.prepare[arithmetic];
  backend_.pool().For(rows, RowGrain(x.cols), [&](int, int begin, int end) {
    for (int row = begin; row < end; ++row) {
      PrepareCall call{};
      call.x = At<float>(x, row);
      call.cols = static_cast<int>(x.cols);
      call.groups = groups;
      call.row_stride = rows;
      call.round_bf16 = backend_.settings().bf16;
      call.out = prepared_.values->address() + row * bytes;
      call.x_sum = reinterpret_cast<float*>(prepared_.sums->address()) + row;
      call.x_scale = reinterpret_cast<float*>(prepared_.scales->address()) + row;
      call.x_isum = reinterpret_cast<int32_t*>(prepared_.isums->address()) + row;
      prepare(&call);
    }
  });
}

void CpuStream::MatMul(Tensor x, const Weight& weight, Epilogue epilogue, Tensor out) {
  const auto& packed = static_cast<const PackedWeight&>(weight);
  LLMD_CHECK(x.cols == packed.cols() && x.rows == out.rows);
  if (x.rows == 0) return;
  Prepare(x, packed.arithmetic(), packed.groups());
  int tiles = packed.tiles();
  auto chunks = static_cast<int>((x.rows + kMaxRowsPerCall - 1) / kMaxRowsPerCall);
  backend_.pool().For(chunks * tiles, 1, [&](int, int begin, int end) {
    for (int i = begin; i < end;) {
      int tile = i % tiles, count = std::min({kTilesPerCall, end - i, tiles - tile});
      MultiplyTiles(packed, i / tiles, tile, count, epilogue, out);
      i += count;
    }
  });
}

void CpuStream::MultiplyTiles(const PackedWeight& weight, int chunk, int tile, int tiles,
                              Epilogue epilogue, const Tensor& out) {
  alignas(64) float sums[kTilesPerCall * kMaxRowsPerCall * kTileColumns];
  alignas(64) std::byte scratch[4096];
  int first = chunk * kMaxRowsPerCall;
  Arithmetic arithmetic = weight.arithmetic();
  GemmCall call{};
  call.tiles = weight.tile(tile);
  call.tile_bytes = weight.tile_bytes();
  call.tile_count = tiles;
  call.groups = prepared_.groups;
  call.x = prepared_.values->address() + first * PreparedGroupBytes(arithmetic);
  call.x_sum = reinterpret_cast<float*>(prepared_.sums->address()) + first;
  if (HasActivationScale(arithmetic)) {
    call.x_scale = reinterpret_cast<float*>(prepared_.scales->address()) + first;
    call.x_isum = reinterpret_cast<int32_t*>(prepared_.isums->address()) + first;
  }
  call.rows = std::min(kMaxRowsPerCall, prepared_.rows - first);
  call.row_stride = prepared_.rows;
  call.out = sums;
  call.scratch = scratch;
  kernels_.gemm[arithmetic][weight.format()](&call);
  for (int t = 0; t < tiles; ++t) {
    int64_t column = static_cast<int64_t>(tile + t) * kTileColumns;
    auto columns = static_cast<int>(std::min<int64_t>(kTileColumns, weight.rows() - column));
    for (int row = 0; row < call.rows; ++row) {
      const float* from = sums + (t * call.rows + row) * kTileColumns;
      float* to = At<float>(out, first + row);
      switch (epilogue) {
        case Epilogue::kStore:
          std::memcpy(to + column, from, columns * sizeof(float));
          break;
        case Epilogue::kAdd:
          kernels_.add(from, columns, to + column);
          break;
        case Epilogue::kSiluMul:
          kernels_.silu_mul(from, to + column / 2);
          break;
      }
    }
  }
}

void CpuStream::StoreKv(const float* k, const float* v, int64_t slot, const KvCache& cache,
                        int layer) {
  const KvGeometry& g = cache.geometry;
  std::byte* block =
      cache.pool->address() + static_cast<size_t>(slot / g.block_size) * cache.block_stride;
  size_t token = static_cast<size_t>(slot % g.block_size) * g.head_dim * g.element_bytes;
  for (int which = 0; which < 2; ++which) {
    for (int head = 0; head < g.kv_heads; ++head) {
      std::byte* to = block + HeadOffset(g, layer, which, head) + token;
      const float* from = (which == 0 ? k : v) + head * g.head_dim;
      if (g.element_bytes == 2) {
        kernels_.to_bf16(from, g.head_dim, reinterpret_cast<uint16_t*>(to));
      } else {
        std::memcpy(to, from, g.head_dim * sizeof(float));
      }
    }
  }
}

void CpuStream::RopeAndStoreKv(Tensor qkv, int heads, Tensor table, const StepTensors& step,
                               const KvCache& cache, int layer) {
  const KvGeometry& g = cache.geometry;
  const auto* positions = At<int32_t>(step.positions);
  const auto* slots = At<int64_t>(step.slots);
  backend_.pool().For(static_cast<int>(qkv.rows), RowGrain(qkv.cols), [&](int, int begin, int end) {
    for (int row = begin; row < end; ++row) {
      float* x = At<float>(qkv, row);
      kernels_.rope(x, At<float>(table, positions[row]), heads + g.kv_heads, g.head_dim);
      const float* k = x + heads * g.head_dim;
      if (slots[row] >= 0) StoreKv(k, k + g.kv_heads * g.head_dim, slots[row], cache, layer);
    }
  });
}

void CpuStream::CollectTasks(const StepTensors& step) {
  tasks_.clear();
  const auto* start = At<int32_t>(step.query_start);
  for (int s = 0; s < step.sequences; ++s) {
    for (int row = start[s]; row < start[s + 1]; row += kAttentionRows) {
      tasks_.push_back({s, row, std::min(kAttentionRows, start[s + 1] - row)});
    }
  }
}

void CpuStream::Attention(Tensor q, int heads, const StepTensors& step, const KvCache& cache,
                          int layer, Tensor out) {
  int kv_heads = cache.geometry.kv_heads;
  CollectTasks(step);
  size_t scratch =
      AttentionScratchFloats(kAttentionRows * heads / kv_heads, cache.geometry.head_dim) *
      sizeof(float);
  for (auto& buffer : attention_scratch_) Reserve(buffer, scratch);
  // The last rows of a prompt see the most: they go first, so that the short ones fill the end.
  auto count = static_cast<int>(tasks_.size()) * kv_heads;
  backend_.pool().For(count, 1, [&](int thread, int begin, int end) {
    for (int i = begin; i < end; ++i) {
      int index = count - 1 - i;
      Attend(tasks_[index / kv_heads], index % kv_heads, thread, q, heads, step, cache, layer, out);
    }
  });
}

void CpuStream::Attend(const AttentionTask& task, int kv_head, int thread, const Tensor& q,
                       int heads, const StepTensors& step, const KvCache& cache, int layer,
                       const Tensor& out) {
  const KvGeometry& g = cache.geometry;
  int group = heads / g.kv_heads, column = kv_head * group * g.head_dim;
  AttentionCall call{};
  call.q = At<float>(q, task.row) + column;
  call.rows = task.rows;
  call.q_stride = static_cast<int>(q.stride);
  call.heads = group;
  call.head_dim = g.head_dim;
  call.positions = At<int32_t>(step.positions) + task.row;
  call.block_table =
      At<int32_t>(step.block_table) + static_cast<int64_t>(task.sequence) * step.table_width;
  call.block_size = g.block_size;
  call.pool = reinterpret_cast<const char*>(cache.pool->address());
  call.block_stride = cache.block_stride;
  call.k_offset = HeadOffset(g, layer, 0, kv_head);
  call.v_offset = HeadOffset(g, layer, 1, kv_head);
  call.kv_bf16 = g.element_bytes == 2;
  call.scale = 1.0f / std::sqrt(static_cast<float>(g.head_dim));
  call.out = At<float>(out, task.row) + column;
  call.out_stride = static_cast<int>(out.stride);
  call.scratch = reinterpret_cast<float*>(attention_scratch_[thread]->address());
  kernels_.attention(&call);
}

void CpuStream::GatherRows(Tensor x, Tensor rows, Tensor out) {
  const auto* index = At<int32_t>(rows);
  for (int64_t r = 0; r < out.rows; ++r) {
    std::memcpy(At<float>(out, r), At<float>(x, index[r]), out.cols * sizeof(float));
  }
}

}  // namespace llmd::engine::cpu
