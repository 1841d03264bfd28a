#include "backend/cpu/isa.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>

namespace llmd::engine::cpu {
namespace {

#if defined(__x86_64__)
bool HasAvx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("avx");
}
bool HasAvx512() {
  return HasAvx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
bool HasVnni() {
  return HasAvx512() && __builtin_cpu_supports("avx512vnni");
}
bool HasBf16() {
  return HasVnni() && __builtin_cpu_supports("avx512bf16");
}
#endif

std::string WantedIsa(const std::string& name) {
  if (!name.empty()) return name;
  const char* environment = std::getenv("LLMD_CPU_ISA");
  return environment == nullptr ? "" : environment;
}

}  // namespace

std::string_view IsaName(Isa isa) {
  switch (isa) {
    case Isa::kScalar:
      return "scalar";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAvx512Vnni:
      return "avx512_vnni";
    case Isa::kAvx512Bf16:
      return "avx512_bf16";
  }
  return "";
}

std::vector<Isa> AvailableIsas() {
  std::vector<Isa> isas{Isa::kScalar};
#if defined(__x86_64__)
  if (HasAvx2()) isas.push_back(Isa::kAvx2);
  if (HasAvx512()) isas.push_back(Isa::kAvx512);
  if (HasVnni()) isas.push_back(Isa::kAvx512Vnni);
  if (HasBf16()) isas.push_back(Isa::kAvx512Bf16);
#endif
  return isas;
}

bool IsaIsFree(const std::string& name) {
  return WantedIsa(name).empty();
}

StatusOr<Isa> ChooseIsa(const std::string& name) {
  std::vector<Isa> isas = AvailableIsas();
  std::string wanted = WantedIsa(name);
  if (wanted.empty()) return isas.back();
  std::string known;
  for (Isa isa : isas) {
    if (IsaName(isa) == wanted) return isa;
    known += known.empty() ? "" : ", ";
    known += IsaName(isa);
  }
  return InvalidArgument("instruction set \"" + wanted + "\" is not one this CPU has: " + known);
}

KernelTable KernelsOf(Isa isa) {
  KernelTable table{};
  FillScalar(&table);
#if defined(__x86_64__)
  if (isa >= Isa::kAvx2) FillAvx2(&table);
  if (isa >= Isa::kAvx512) FillAvx512(&table);
  if (isa >= Isa::kAvx512Vnni) FillAvx512Vnni(&table);
  if (isa >= Isa::kAvx512Bf16) FillAvx512Bf16(&table);
#endif
  return table;
}

double MeasureMultiplyAdds(const KernelTable& kernels, Arithmetic arithmetic) {
  auto probe = kernels.probe[arithmetic];
  if (probe == nullptr) return 0;
  double best = 0;
  for (int round = 0; round < 5; ++round) {
    auto begin = std::chrono::steady_clock::now();
    double done = probe(20000);
    std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    best = std::max(best, done / seconds.count());
  }
  return best;
}

}  // namespace llmd::engine::cpu
