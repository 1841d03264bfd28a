// What a model needs of a device: memory, weights in the device's own layout, and an ordered stream
// of the operations of a transformer step. Made for CPU and CUDA alike: operands are handles, no
// operation takes a host pointer, and results are on the host only after Stream::Synchronize.
//
// Contract for every implementation: the result of a row depends on that row, its KV blocks and the
// weights only, bit for bit: not on how many rows share the call, on their order, on the number of
// threads or on where its blocks lie.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "llmd/engine/model.h"
#include "llmd/engine/tensor.h"
#include "llmd/engine/weights/tensor_view.h"
#include "llmd/status.h"

namespace llmd::engine {

// A matrix [rows, cols] in the backend's layout: y = x · Wᵀ. Immutable once packed.
class Weight {
 public:
  virtual ~Weight() = default;
  virtual int64_t rows() const = 0;
  virtual int64_t cols() const = 0;
  virtual size_t size_bytes() const = 0;
};

// Row n of the packed matrix is row `row` of `parts[part]`: concatenation, permutation and
// interleaving in one table.
struct WeightSpec {
  struct RowRef {
    uint32_t part = 0, row = 0;
  };
  std::vector<TensorView> parts;  // equal cols
  std::vector<RowRef> rows;
};

// The rows of `parts` one after another.
WeightSpec ConcatRows(std::vector<TensorView> parts);

enum class Epilogue {
  kStore,    // out = y
  kAdd,      // out += y
  kSiluMul,  // rows come in pairs of 16: 16 gate rows, then their 16 up rows; out[n/2] = silu(gate)
             // · up
};

// The paged KV pool (model.h: KvGeometry) as a backend sees it.
struct KvCache {
  Buffer* pool = nullptr;
  size_t block_stride = 0;  // bytes
  int num_blocks = 0;
  KvGeometry geometry;
};

// One step's arrays in the backend's memory (see StepBatch).
struct StepTensors {
  Tensor positions, slots, query_start, context_len, block_table, logit_rows;
  int sequences = 0, table_width = 0;
};

// Operations run in the order they are called. Thread-compatible; shapes are the caller's duty
// (LLMD_CHECK).
class Stream {
 public:
  virtual ~Stream() = default;

  virtual void CopyIn(std::span<const std::byte> host, Tensor to) = 0;
  virtual void CopyOut(Tensor from, std::span<std::byte> host) = 0;
  // out[t] = table row tokens[t].
  virtual void Embed(const Weight& table, Tensor tokens, Tensor out) = 0;
  // out = x · rsqrt(mean x² + eps) · weight.
  virtual void RmsNorm(Tensor x, Tensor weight, float eps, Tensor out) = 0;
  virtual void MatMul(Tensor x, const Weight& weight, Epilogue epilogue, Tensor out) = 0;
  // qkv is [T, (heads + 2 · kv_heads) · head_dim]. Turns q and k in place by their position
  // (half-split pairs, `table` is [positions, head_dim]: cosines then sines), then writes k and v
  // of rows with slot ≥ 0 to `layer` of the cache.
  virtual void RopeAndStoreKv(Tensor qkv, int heads, Tensor table, const StepTensors& step,
                              const KvCache& cache, int layer) = 0;
  // Causal attention of each row over positions 0…its own, softmax scale 1/√head_dim. q and out are
  // [T, heads · head_dim].
  virtual void Attention(Tensor q, int heads, const StepTensors& step, const KvCache& cache,
                         int layer, Tensor out) = 0;
  // out[r] = x[rows[r]].
  virtual void GatherRows(Tensor x, Tensor rows, Tensor out) = 0;
  // Waits for what was queued; the first failure of the device since the last call.
  virtual Status Synchronize() = 0;
};

class Backend {
 public:
  virtual ~Backend() = default;

  // 64-byte aligned. RESOURCE_EXHAUSTED when there is no room.
  virtual StatusOr<std::unique_ptr<Buffer>> Allocate(size_t size_bytes, MemoryKind kind) = 0;
  // The kind the operations want their operands in.
  virtual MemoryKind preferred_kind() const = 0;
  // A view of the caller's memory, which must outlive it. A device backend registers it.
  virtual StatusOr<std::unique_ptr<Buffer>> WrapHost(std::span<std::byte> bytes) = 0;
  // Converts and lays out a matrix, in parallel.
  virtual StatusOr<std::unique_ptr<Weight>> Pack(const WeightSpec& spec) = 0;
  virtual std::unique_ptr<Stream> CreateStream() = 0;
  // How K and V are kept under the options of this backend.
  virtual ElementType kv_type() const = 0;
  // "cpu avx512_bf16, 2 threads, bfloat16 (dot)".
  virtual std::string Describe() const = 0;
};

// A CPU backend under `options` (dtype, quantization, threads, isa; $LLMD_CPU_ISA overrides an
// empty isa). INVALID_ARGUMENT lists the instruction sets this CPU has when the one asked for is
// not among them.
StatusOr<std::unique_ptr<Backend>> CreateCpuBackend(const ModelOptions& options);

// The instruction set paths this CPU can run, weakest first: "scalar", "avx2", "avx512", "avx512_vnni",
// "avx512_bf16".
std::vector<std::string> CpuIsaNames();

}  // namespace llmd::engine
