#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "engine/backend/cpu/kernel_support.h"

namespace llmd::engine::cpu {
namespace {

constexpr int kContext = 150, kHeads = 3;

// Keys and values of one head over a context, laid into blocks in a given order; unused memory is
// NaN.
struct Cache {
  int dim, block_size;
  bool bf16;
  std::vector<float> keys, values;
  std::vector<std::byte> pool;
  std::vector<int32_t> table;
  size_t block_stride, v_offset;

  Cache(int dim, int block_size, bool bf16, uint32_t shuffle)
      : dim(dim), block_size(block_size), bf16(bf16) {
    std::mt19937 random(99);
    keys = testing::RandomFloats(static_cast<size_t>(kContext) * dim, 1.0f, random);
    values = testing::RandomFloats(static_cast<size_t>(kContext) * dim, 1.0f, random);
    int blocks = (kContext + block_size - 1) / block_size;
    table.resize(blocks);
    std::iota(table.begin(), table.end(), 0);
    random.seed(shuffle);
    if (shuffle != 0) std::shuffle(table.begin(), table.end(), random);
    size_t element = bf16 ? 2 : 4;
    v_offset = static_cast<size_t>(block_size) * dim * element;
    block_stride = 2 * v_offset + 64;
    pool.assign(blocks * block_stride, std::byte{0xff});
    for (int t = 0; t < kContext; ++t) {
      std::byte* at =
          pool.data() + table[t / block_size] * block_stride + t % block_size * dim * element;
      for (int d = 0; d < dim; ++d) {
        Put(at + d * element, keys[t * dim + d]);
        Put(at + v_offset + d * element, values[t * dim + d]);
      }
    }
  }
  void Put(std::byte* at, float& value) const {
    uint16_t half = FloatToBFloat16(value);
    if (bf16) value = BFloat16ToFloat(half);
    std::memcpy(at, bf16 ? static_cast<void*>(&half) : static_cast<void*>(&value), bf16 ? 2 : 4);
  }
};

std::vector<float> Attend(const KernelTable& kernels, const Cache& cache,
                          const std::vector<float>& q, int first_position, int rows) {
  std::vector<int32_t> positions(rows);
  std::iota(positions.begin(), positions.end(), first_position);
  std::vector<float> out(static_cast<size_t>(rows) * kHeads * cache.dim);
  std::vector<float> scratch(AttentionScratchFloats(rows * kHeads, cache.dim),
                             std::numeric_limits<float>::quiet_NaN());
  AttentionCall call{};
  call.q = q.data() + static_cast<size_t>(first_position) * kHeads * cache.dim;
  call.rows = rows;
  call.q_stride = call.out_stride = kHeads * cache.dim;
  call.heads = kHeads;
  call.head_dim = cache.dim;
  call.positions = positions.data();
  call.block_table = cache.table.data();
  call.block_size = cache.block_size;
  call.pool = reinterpret_cast<const char*>(cache.pool.data());
  call.block_stride = cache.block_stride;
  call.v_offset = cache.v_offset;
  call.kv_bf16 = cache.bf16;
  call.scale = 1 / std::sqrt(static_cast<float>(cache.dim));
  call.out = out.data();
  call.scratch = scratch.data();
  kernels.attention(&call);
  return out;
}

std::vector<double> Reference(const Cache& cache, const float* q, int position) {
  std::vector<double> scores(position + 1), out(cache.dim);
  double top = -1e300, total = 0;
  for (int t = 0; t <= position; ++t) {
    for (int d = 0; d < cache.dim; ++d)
      scores[t] += static_cast<double>(q[d]) * cache.keys[t * cache.dim + d];
    scores[t] /= std::sqrt(cache.dim);
    top = std::max(top, scores[t]);
  }
  for (double& score : scores) total += score = std::exp(score - top);
  for (int t = 0; t <= position; ++t) {
    for (int d = 0; d < cache.dim; ++d)
      out[d] += scores[t] / total * cache.values[t * cache.dim + d];
  }
  return out;
}

std::vector<float> Queries(int dim) {
  std::mt19937 random(5);
  return testing::RandomFloats(static_cast<size_t>(kContext) * kHeads * dim, 2.0f, random);
}

TEST(Attention, MatchesTheFormulaOnEveryPath) {
  for (int dim : {16, 64, 80, 128}) {
    for (bool bf16 : {false, true}) {
      Cache cache(dim, 16, bf16, 1);
      std::vector<float> q = Queries(dim);
      for (Isa isa : AvailableIsas()) {
        SCOPED_TRACE(IsaName(isa));
        KernelTable kernels = KernelsOf(isa);
        for (int position : {0, 1, 15, 16, 31, 32, 63, 64, 100, kContext - 1}) {
          std::vector<float> got = Attend(kernels, cache, q, position, 1);
          for (int h = 0; h < kHeads; ++h) {
            auto want = Reference(cache, q.data() + (position * kHeads + h) * dim, position);
            for (int d = 0; d < dim; ++d) ASSERT_NEAR(got[h * dim + d], want[d], 3e-6) << position;
          }
        }
      }
    }
  }
}

TEST(Attention, GivesARowTheSameBitsAloneAndInAPrompt) {
  constexpr int kDim = 64;
  Cache cache(kDim, 16, true, 0);
  std::vector<float> q = Queries(kDim);
  for (Isa isa : AvailableIsas()) {
    KernelTable kernels = KernelsOf(isa);
    for (int first : {0, 25, 60, 130}) {
      for (int rows : {2, 7, 16}) {
        std::vector<float> together = Attend(kernels, cache, q, first, rows);
        for (int r = 0; r < rows; ++r) {
          std::vector<float> alone = Attend(kernels, cache, q, first + r, 1);
          ASSERT_EQ(0, std::memcmp(alone.data(), together.data() + r * alone.size(),
                                   alone.size() * sizeof(float)))
              << IsaName(isa) << " row " << first + r;
        }
      }
    }
  }
}

TEST(Attention, DoesNotCareWhereTheBlocksLie) {
  constexpr int kDim = 64;
  Cache plain(kDim, 16, true, 0), scattered(kDim, 16, true, 7), small(kDim, 5, true, 3);
  std::vector<float> q = Queries(kDim);
  for (Isa isa : AvailableIsas()) {
    KernelTable kernels = KernelsOf(isa);
    std::vector<float> want = Attend(kernels, plain, q, 90, 16);
    EXPECT_EQ(want, Attend(kernels, scattered, q, 90, 16)) << IsaName(isa);
    EXPECT_EQ(want, Attend(kernels, small, q, 90, 16)) << IsaName(isa);
  }
}

}  // namespace
}  // namespace llmd::engine::cpu
