#include "backend/cpu/cpu_backend.h"

#include <algorithm>

#include "backend/cpu/cpu_stream.h"

namespace llmd::engine {
namespace cpu {
namespace {

constexpr int kMaxThreads = 512;
// The dot product must win clearly: it rounds more often than a multiply-add of widened values.
constexpr double kDotAdvantage = 1.1;

// bf16 dot products where they are the faster arithmetic of this very CPU; where the caller forced
// the instruction set, always.
Arithmetic Bf16Arithmetic(Isa isa, bool forced) {
  if (isa != Isa::kAvx512Bf16) return kArithmeticF32;
  if (forced) return kArithmeticBf16Dot;
  KernelTable kernels = KernelsOf(isa);
  bool faster = MeasureMultiplyAdds(kernels, kArithmeticBf16Dot) >
                kDotAdvantage * MeasureMultiplyAdds(kernels, kArithmeticF32);
  return faster ? kArithmeticBf16Dot : kArithmeticF32;
}

}  // namespace

CpuBackend::CpuBackend(const CpuSettings& settings)
    : settings_(settings), kernels_(KernelsOf(settings.isa)), pool_(settings.threads) {}

StatusOr<std::unique_ptr<Buffer>> CpuBackend::Allocate(size_t size_bytes, MemoryKind) {
  LLMD_ASSIGN_OR_RETURN(std::unique_ptr<HostBuffer> buffer, HostBuffer::Create(size_bytes));
  return std::unique_ptr<Buffer>(std::move(buffer));
}

StatusOr<std::unique_ptr<Buffer>> CpuBackend::WrapHost(std::span<std::byte> bytes) {
  return std::unique_ptr<Buffer>(std::make_unique<HostBuffer>(bytes));
}

StatusOr<std::unique_ptr<Weight>> CpuBackend::Pack(const WeightSpec& spec) {
  LLMD_ASSIGN_OR_RETURN(std::unique_ptr<PackedWeight> weight,
                        PackedWeight::Create(spec, settings_.arithmetic, settings_.bf16, pool_));
  return std::unique_ptr<Weight>(std::move(weight));
}

std::unique_ptr<Stream> CpuBackend::CreateStream() {
  return std::make_unique<CpuStream>(*this);
}

std::string CpuBackend::Describe() const {
  std::string text = "cpu " + std::string(IsaName(settings_.isa)) + ", " +
                     std::to_string(settings_.threads) +
                     (settings_.threads == 1 ? " thread, " : " threads, ") +
                     (settings_.bf16 ? "bfloat16" : "float32");
  if (settings_.arithmetic == kArithmeticInt8) return text + ", w8a8";
  if (settings_.bf16)
    text +=
        settings_.arithmetic == kArithmeticBf16Dot ? " by dot products" : " by f32 multiply-adds";
  return text;
}

}  // namespace cpu

WeightSpec ConcatRows(std::vector<TensorView> parts) {
  WeightSpec spec;
  spec.parts = std::move(parts);
  for (uint32_t part = 0; part < spec.parts.size(); ++part) {
    for (uint32_t row = 0; row < spec.parts[part].rows(); ++row) spec.rows.push_back({part, row});
  }
  return spec;
}

StatusOr<std::unique_ptr<Backend>> CreateCpuBackend(const ModelOptions& options) {
  if (options.threads < 0 || options.threads > cpu::kMaxThreads) {
    return InvalidArgument("threads is " + std::to_string(options.threads) +
                           ", expected 0 (all cores) to " + std::to_string(cpu::kMaxThreads));
  }
  cpu::CpuSettings settings;
  LLMD_ASSIGN_OR_RETURN(settings.isa, cpu::ChooseIsa(options.isa));
  settings.threads = options.threads > 0 ? options.threads : cpu::UsableCores();
  settings.bf16 = options.dtype == DType::kBFloat16 ||
                  (options.dtype == DType::kAuto && settings.isa == cpu::Isa::kAvx512Bf16);
  if (options.quantization == Quantization::kW8A8) {
    settings.arithmetic = cpu::kArithmeticInt8;
  } else if (settings.bf16) {
    settings.arithmetic = cpu::Bf16Arithmetic(settings.isa, !cpu::IsaIsFree(options.isa));
  }
  return std::unique_ptr<Backend>(std::make_unique<cpu::CpuBackend>(settings));
}

std::vector<std::string> CpuIsaNames() {
  std::vector<std::string> names;
  for (cpu::Isa isa : cpu::AvailableIsas()) names.emplace_back(cpu::IsaName(isa));
  return names;
}

}  // namespace llmd::engine
