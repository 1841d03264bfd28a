#include "backend/cpu/cpu_backend.h"

#include <algorithm>

#include "backend/cpu/cpu_stream.h"

namespace llmd::engine {
namespace cpu {
namespace {

constexpr int kMaxThreads = 512;
// The dot product must win clearly: it rounds more often than a multiply-add of widened values.
constexpr double kDotAdvantage = 1.1;

// Whether this very CPU multiplies bf16 pairs faster than widened values; forced paths always do
// what their name says.
bool DotIsFaster(Isa isa, const KernelTable& kernels, bool forced) {
  if (isa != Isa::kAvx512Bf16) return false;
  return forced || MeasureMultiplyAdds(kernels, kArithmeticBf16Dot) >
                       kDotAdvantage * MeasureMultiplyAdds(kernels, kArithmeticF32);
}

// Fixed point costs two byte products a weight, is more exact than bf16 and needs no widening.
bool FixedPointIsFaster(Isa isa, const KernelTable& kernels, Arithmetic other, bool forced) {
  if (kernels.gemm[kArithmeticFixed16][kFormatQ4] == nullptr) return false;
  if (forced) return isa == Isa::kAvx512Vnni;
  return MeasureMultiplyAdds(kernels, kArithmeticInt8) / 2 > MeasureMultiplyAdds(kernels, other);
}

void ChooseBf16Arithmetic(CpuSettings& settings, bool forced) {
  KernelTable kernels = KernelsOf(settings.isa);
  if (DotIsFaster(settings.isa, kernels, forced)) settings.dense_arithmetic = kArithmeticBf16Dot;
  settings.arithmetic = settings.dense_arithmetic;
  if (FixedPointIsFaster(settings.isa, kernels, settings.dense_arithmetic, forced))
    settings.arithmetic = kArithmeticFixed16;
}

std::string_view ArithmeticText(Arithmetic arithmetic) {
  switch (arithmetic) {
    case kArithmeticBf16Dot:
      return "dot products";
    case kArithmeticFixed16:
      return "16-bit fixed point";
    default:
      return "f32 multiply-adds";
  }
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
  Arithmetic arithmetic = StaysQuantised(spec) ? settings_.arithmetic : settings_.dense_arithmetic;
  LLMD_ASSIGN_OR_RETURN(std::unique_ptr<PackedWeight> weight,
                        PackedWeight::Create(spec, arithmetic, settings_.bf16, pool_));
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
  if (settings_.bf16) text.append(" by ").append(ArithmeticText(settings_.arithmetic));
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
  settings.bf16 = options.dtype != DType::kFloat32;
  if (options.quantization == Quantization::kW8A8) {
    settings.arithmetic = settings.dense_arithmetic = cpu::kArithmeticInt8;
  } else if (settings.bf16) {
    cpu::ChooseBf16Arithmetic(settings, !cpu::IsaIsFree(options.isa));
  }
  return std::unique_ptr<Backend>(std::make_unique<cpu::CpuBackend>(settings));
}

std::vector<std::string> CpuIsaNames() {
  std::vector<std::string> names;
  for (cpu::Isa isa : cpu::AvailableIsas()) names.emplace_back(cpu::IsaName(isa));
  return names;
}

}  // namespace llmd::engine
