// The seam between the engine (who runs when, in which blocks) and the arithmetic (a model on a
// backend).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "llmd/engine/model_config.h"
#include "llmd/status.h"

namespace llmd::engine {

// The shape of one KV block: one contiguous run of bytes, [layer][K then V][kv_head][token in
// block][head_dim].
struct KvGeometry {
  int layers = 0, kv_heads = 0, head_dim = 0, block_size = 0;  // block_size in tokens
  int element_bytes = 0;                                       // 2 = bf16, 4 = f32
  size_t block_bytes() const {
    return size_t(layers) * 2 * kv_heads * block_size * head_dim * element_bytes;
  }
};

// One step's work over several sequences laid end to end ("varlen"). All arrays are on the host;
// the model moves them.
struct StepBatch {
  std::span<const int32_t> tokens;     // [T]
  std::span<const int32_t> positions;  // [T] position in its sequence
  std::span<const int64_t>
      slots;  // [T] where K and V go: block * block_size + offset; -1 = nowhere
  std::span<const int32_t>
      query_start;  // [S + 1] rows of sequence s: query_start[s] … query_start[s+1]
  std::span<const int32_t> context_len;  // [S] tokens in KV after this step
  std::span<const int32_t> block_table;  // [S * table_width], row-major
  int table_width = 0;
  std::span<const int32_t> logit_rows;  // [R] ascending rows of T whose logits are wanted
};

// Weights on a backend. Owned and called by the engine thread only (the backend has threads of its
// own). The result of a row does not depend on what else is in the batch.
class Model {
 public:
  virtual ~Model() = default;
  virtual const ModelConfig& config() const = 0;
  virtual KvGeometry kv_geometry(int block_size) const = 0;
  // Where the blocks are. `pool` is host-mapped memory of `num_blocks` blocks `block_stride` bytes
  // apart; the model reads and writes it in place (or mirrors it on a device). Called once, before
  // Forward.
  virtual Status AttachKv(std::byte* pool, size_t block_stride, int num_blocks, int block_size) = 0;
  // Runs the step; logits is [R * vocab_size] f32 on the host.
  virtual Status Forward(const StepBatch& batch, std::span<float> logits) = 0;
  virtual int max_tokens_per_step() const = 0;
  // For logs and /version: "cpu avx512_bf16, bf16 weights", …
  virtual std::string Describe() const = 0;
};

enum class DType { kAuto, kFloat32, kBFloat16 };
enum class Quantization { kNone, kW8A8 };

struct ModelOptions {
  DType dtype = DType::kAuto;  // auto: the accuracy of bf16, KV cache included, on every CPU
  Quantization quantization = Quantization::kNone;
  int threads = 0;  // 0 = the cores this process may use
  int max_tokens_per_step = 2048;
  int max_position = 0;  // positions that will be used at most; 0 = the model's
  std::string isa;       // "" = best; "scalar", "avx2", "avx512", "avx512_bf16" … (LLMD_CPU_ISA)
};

class ModelFile;  // weights/gguf.h

// Loads the weights of `file` (packed for the backend once) and chooses the architecture by name.
// UNIMPLEMENTED lists the architectures known.
StatusOr<std::unique_ptr<Model>> LoadModel(const ModelFile& file, const ModelOptions& options);

}  // namespace llmd::engine
