// The CPU backend: kernels of one instruction set, one thread pool, host memory. Operations run as
// they are called, so its streams are always synchronised. All streams share the pool: use them
// from one thread.
#pragma once

#include <memory>
#include <string>

#include "backend/cpu/isa.h"
#include "backend/cpu/packed_weight.h"
#include "backend/cpu/thread_pool.h"
#include "llmd/engine/backend.h"

namespace llmd::engine::cpu {

struct CpuSettings {
  Isa isa = Isa::kScalar;
  // Of weights that stay quantised, and of the others.
  Arithmetic arithmetic = kArithmeticF32, dense_arithmetic = kArithmeticF32;
  bool bf16 = false;  // activations, dense weights and the KV cache are bf16
  int threads = 1;
};

class CpuBackend final : public Backend {
 public:
  explicit CpuBackend(const CpuSettings& settings);

  StatusOr<std::unique_ptr<Buffer>> Allocate(size_t size_bytes, MemoryKind kind) override;
  MemoryKind preferred_kind() const override { return MemoryKind::kHost; }
  StatusOr<std::unique_ptr<Buffer>> WrapHost(std::span<std::byte> bytes) override;
  StatusOr<std::unique_ptr<Weight>> Pack(const WeightSpec& spec) override;
  std::unique_ptr<Stream> CreateStream() override;
  ElementType kv_type() const override {
    return settings_.bf16 ? ElementType::kBF16 : ElementType::kF32;
  }
  std::string Describe() const override;

  const CpuSettings& settings() const { return settings_; }
  const KernelTable& kernels() const { return kernels_; }
  ThreadPool& pool() { return pool_; }

 private:
  CpuSettings settings_;
  KernelTable kernels_;
  ThreadPool pool_;
};

}  // namespace llmd::engine::cpu
