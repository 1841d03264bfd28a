// clang-format off: the vectors come before the bodies written over them.
#include "backend/cpu/kernels.h"
#include "backend/cpu/simd_avx512.h"
#include "backend/cpu/gemm_body.h"
#include "backend/cpu/ops_body.h"
#include "backend/cpu/attention_body.h"
// clang-format on

namespace llmd::engine::cpu {

void FillAvx512(KernelTable* table) {
  ops::Fill(table);
  gemm::FillF32Gemm(table);
}

}  // namespace llmd::engine::cpu
