// Which instruction sets this CPU (and its operating system) offers, and the kernels of one.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "backend/cpu/kernels.h"
#include "llmd/status.h"

namespace llmd::engine::cpu {

enum class Isa { kScalar, kAvx2, kAvx512, kAvx512Vnni, kAvx512Bf16 };

std::string_view IsaName(Isa isa);
// Weakest first; always has kScalar.
std::vector<Isa> AvailableIsas();
// `name`, or $LLMD_CPU_ISA when it is empty, or the best. INVALID_ARGUMENT lists what there is.
StatusOr<Isa> ChooseIsa(const std::string& name);
// True when name and $LLMD_CPU_ISA leave the choice to us.
bool IsaIsFree(const std::string& name);
KernelTable KernelsOf(Isa isa);

// Multiply-adds per second of one thread, measured for about half a millisecond; 0 where the table
// has no probe.
double MeasureMultiplyAdds(const KernelTable& kernels, Arithmetic arithmetic);

}  // namespace llmd::engine::cpu
