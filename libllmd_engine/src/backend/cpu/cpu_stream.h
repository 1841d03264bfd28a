// The operations of a step on the CPU; see Stream for their meaning. Each is at most one or two
// parallel loops, run on the caller alone when there is little to do.
#pragma once

#include <memory>
#include <vector>

#include "backend/cpu/kernels.h"
#include "backend/cpu/packed_weight.h"
#include "llmd/engine/backend.h"

namespace llmd::engine::cpu {

class CpuBackend;

class CpuStream final : public Stream {
 public:
  explicit CpuStream(CpuBackend& backend);

  void CopyIn(std::span<const std::byte> host, Tensor to) override;
  void CopyOut(Tensor from, std::span<std::byte> host) override;
  void Embed(const Weight& table, Tensor tokens, Tensor out) override;
  void RmsNorm(Tensor x, Tensor weight, float eps, Tensor out) override;
  void MatMul(Tensor x, const Weight& weight, Epilogue epilogue, Tensor out) override;
  void RopeAndStoreKv(Tensor qkv, int heads, Tensor table, const StepTensors& step,
                      const KvCache& cache, int layer) override;
  void Attention(Tensor q, int heads, const StepTensors& step, const KvCache& cache, int layer,
                 Tensor out) override;
  void GatherRows(Tensor x, Tensor rows, Tensor out) override;
  Status Synchronize() override { return OkStatus(); }

 private:
  // Activations in the form the matrix kernels read.
  struct Prepared {
    std::unique_ptr<HostBuffer> values, sums, scales, isums;
    int rows = 0, groups = 0;
  };
  struct AttentionTask {
    int sequence, row, rows;
  };

  void Prepare(const Tensor& x, Arithmetic arithmetic, int groups);
  void MultiplyTiles(const PackedWeight& weight, int chunk, int tile, int tiles, Epilogue epilogue,
                     const Tensor& out);
  void StoreKv(const float* k, const float* v, int64_t slot, const KvCache& cache, int layer);
  void CollectTasks(const StepTensors& step);
  void Attend(const AttentionTask& task, int kv_head, int thread, const Tensor& q, int heads,
              const StepTensors& step, const KvCache& cache, int layer, const Tensor& out);

  CpuBackend& backend_;
  const KernelTable& kernels_;
  Prepared prepared_;
  std::vector<AttentionTask> tasks_;
  std::vector<std::unique_ptr<HostBuffer>> attention_scratch_;  // one a thread
};

}  // namespace llmd::engine::cpu
