// The Llama architecture (Llama, SmolLM2 and kin): pre-norm blocks, grouped-query attention with
// rotary positions, gated SiLU feed-forward, optionally tied embeddings. Residual stream in f32.
// GGUF stores Q and K rows for interleaved rotation; they are put back to half-split order while
// packing.
#pragma once

#include <memory>
#include <vector>

#include "llmd/engine/backend.h"
#include "llmd/engine/model.h"
#include "llmd/engine/weights/gguf.h"

namespace llmd::engine {

class LlamaModel final : public Model {
 public:
  static StatusOr<std::unique_ptr<Model>> Create(const ModelFile& file, const ModelOptions& options,
                                                 std::unique_ptr<Backend> backend);

  const ModelConfig& config() const override { return config_; }
  KvGeometry kv_geometry(int block_size) const override;
  Status AttachKv(std::byte* pool, size_t block_stride, int num_blocks, int block_size) override;
  Status Forward(const StepBatch& batch, std::span<float> logits) override;
  int max_tokens_per_step() const override { return max_tokens_; }
  std::string Describe() const override;

 private:
  struct Layer {
    Tensor attention_norm, ffn_norm;
    std::unique_ptr<Weight> qkv, output, gate_up, down;
  };

  LlamaModel() = default;
  Status Load(const ModelFile& file);
  Status LoadLayer(const ModelFile& file, int index, Layer& layer);
  StatusOr<std::unique_ptr<Weight>> LoadQkv(const ModelFile& file, const std::string& prefix);
  StatusOr<std::unique_ptr<Weight>> LoadGateUp(const ModelFile& file, const std::string& prefix);
  StatusOr<Tensor> LoadVector(const ModelFile& file, const std::string& name);
  Status MakeRopeTable();
  Status MakeScratch();
  Status Check(const StepBatch& batch, std::span<float> logits) const;
  Status CheckSequence(const StepBatch& batch, size_t sequence) const;
  StatusOr<StepTensors> Upload(const StepBatch& batch);
  void RunLayer(const Layer& layer, int index, const StepTensors& step, int64_t rows);
  Status MakeLogits(Tensor logit_rows, std::span<float> logits);

  ModelConfig config_;
  int max_tokens_ = 0;
  int rope_rows_ = 0;  // positions that the table has, or will have once the KV pool is known
  std::unique_ptr<Backend> backend_;
  std::vector<std::unique_ptr<Buffer>> buffers_;  // vectors, tables and scratch
  std::unique_ptr<Weight> embedding_, output_;    // output_ is null when tied
  std::vector<Layer> layers_;
  Tensor output_norm_, rope_;
  Tensor hidden_, normed_, qkv_, attention_, activation_;  // [max_tokens, …] f32
  std::unique_ptr<Buffer> step_buffer_, kv_pool_;
  KvCache cache_;
  std::unique_ptr<Stream> stream_;
};

}  // namespace llmd::engine
