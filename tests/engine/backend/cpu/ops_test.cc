#include <gtest/gtest.h>

#include <cmath>

#include "engine/backend/cpu/kernel_support.h"

namespace llmd::engine::cpu {
namespace {

std::vector<float> Sample(size_t count, uint32_t seed, float scale = 1.0f) {
  std::mt19937 random(seed);
  return testing::RandomFloats(count, scale, random);
}

template <typename Body>
void ForEachIsa(const Body& body) {
  for (Isa isa : AvailableIsas()) {
    SCOPED_TRACE(IsaName(isa));
    body(KernelsOf(isa));
  }
}

TEST(RmsNorm, MatchesTheFormulaOnOddSizes) {
  for (int cols : {1, 7, 16, 33, 96, 576}) {
    std::vector<float> x = Sample(cols, 1), w = Sample(cols, 2), out(cols);
    double sum = 0;
    for (float value : x) sum += static_cast<double>(value) * value;
    double scale = 1 / std::sqrt(sum / cols + 1e-5);
    ForEachIsa([&](const KernelTable& kernels) {
      kernels.rms_norm(x.data(), w.data(), 1e-5f, cols, out.data());
      for (int i = 0; i < cols; ++i)
        ASSERT_NEAR(out[i], x[i] * scale * w[i], 2e-6 * (1 + std::fabs(out[i])));
    });
  }
}

TEST(SiluMul, MatchesTheFormulaFarAndNear) {
  std::vector<float> gate_up(32);
  for (int i = 0; i < 16; ++i) {
    gate_up[i] = std::vector<float>{-1000, -100, -88, -20, -5, -1, -1e-4f, 0,
                                    1e-4f, 0.5f, 1,   5,   20, 88, 100,    1000}[i];
    gate_up[16 + i] = 1.0f + 0.25f * static_cast<float>(i);
  }
  ForEachIsa([&](const KernelTable& kernels) {
    float out[16];
    kernels.silu_mul(gate_up.data(), out);
    for (int i = 0; i < 16; ++i) {
      double g = gate_up[i], want = g / (1 + std::exp(-g)) * gate_up[16 + i];
      ASSERT_NEAR(out[i], want, 1e-6 * std::fabs(want) + 1e-30) << gate_up[i];
    }
  });
}

TEST(Rope, RotatesHalfSplitPairs) {
  for (int dim : {16, 32, 64, 80}) {
    std::vector<float> table(dim), x = Sample(2 * dim, 3);
    for (int i = 0; i < dim / 2; ++i) {
      table[i] = std::cos(0.3f * static_cast<float>(i));
      table[dim / 2 + i] = std::sin(0.3f * static_cast<float>(i));
    }
    ForEachIsa([&](const KernelTable& kernels) {
      std::vector<float> y = x;
      kernels.rope(y.data(), table.data(), 2, dim);
      for (int h = 0; h < 2; ++h) {
        for (int i = 0; i < dim / 2; ++i) {
          float a = x[h * dim + i], b = x[h * dim + dim / 2 + i], c = table[i],
                s = table[dim / 2 + i];
          ASSERT_NEAR(y[h * dim + i], a * c - b * s, 1e-6);
          ASSERT_NEAR(y[h * dim + dim / 2 + i], b * c + a * s, 1e-6);
        }
      }
    });
  }
}

TEST(ToBf16, RoundsLikeTheReference) {
  std::vector<float> x = Sample(37, 4, 100.0f);
  ForEachIsa([&](const KernelTable& kernels) {
    std::vector<uint16_t> out(37);
    kernels.to_bf16(x.data(), 37, out.data());
    for (int i = 0; i < 37; ++i) ASSERT_EQ(out[i], FloatToBFloat16(x[i]));
  });
}

TEST(Add, AddsEveryElement) {
  std::vector<float> x = Sample(31, 5), y = Sample(31, 6);
  ForEachIsa([&](const KernelTable& kernels) {
    std::vector<float> out = x;
    kernels.add(y.data(), 31, out.data());
    for (int i = 0; i < 31; ++i) ASSERT_EQ(out[i], x[i] + y[i]);
  });
}

}  // namespace
}  // namespace llmd::engine::cpu
