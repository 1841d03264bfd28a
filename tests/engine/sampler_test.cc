#include "llmd/engine/sampler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <random>

namespace llmd::engine {
namespace {

using testing::ElementsAre;
using testing::UnorderedElementsAre;

constexpr float kInf = std::numeric_limits<float>::infinity();

std::vector<float> RandomRow(int n, unsigned seed, float spread = 3) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, spread);
  std::vector<float> row(n);
  for (float& v : row) v = normal(random);
  return row;
}

TokenId SampleOnce(Sampler& sampler, const SamplingParams& params, std::vector<float> row,
                   uint64_t seed, uint64_t position = 0) {
  LogitsState state;
  state.Init(params, {}, {});
  return sampler.Sample(params, state, {}, seed, position, row, nullptr);
}

// The distribution that params ask for, computed the long way: sorted, in double.
std::vector<double> Expected(const SamplingParams& p, const std::vector<float>& row) {
  const int n = static_cast<int>(row.size());
  std::vector<double> scaled(row.begin(), row.end());
  for (double& v : scaled) v /= p.temperature;
  const double max = *std::max_element(scaled.begin(), scaled.end());
  std::vector<double> prob(n);
  for (int i = 0; i < n; ++i) prob[i] = std::exp(scaled[i] - max);
  std::vector<int> order(n);
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(),
            [&](int a, int b) { return scaled[a] != scaled[b] ? scaled[a] > scaled[b] : a < b; });
  for (double& v : prob) v = v < p.min_p ? 0 : v;
  if (p.top_k > 0 && p.top_k < n) {
    const double least = scaled[order[p.top_k - 1]];
    for (int i = 0; i < n; ++i) prob[i] = scaled[i] >= least ? prob[i] : 0;
  }
  const double total = std::accumulate(prob.begin(), prob.end(), 0.0);
  double above = 0;
  for (const int i : order) {
    const double mine = prob[i];
    if (above >= p.top_p * total) prob[i] = 0;
    above += mine;
  }
  const double kept = std::accumulate(prob.begin(), prob.end(), 0.0);
  for (double& v : prob) v /= kept;
  return prob;
}

// Draws many times and compares counts with the exact probabilities by chi-square.
void CheckDistribution(const SamplingParams& params, const std::vector<float>& row) {
  constexpr int kDraws = 8000;
  Sampler sampler(static_cast<int>(row.size()));
  std::vector<int> counts(row.size());
  for (int i = 0; i < kDraws; ++i) ++counts[SampleOnce(sampler, params, row, 12345, i)];
  const std::vector<double> expected = Expected(params, row);
  double chi = 0, rest_expected = 0, rest_seen = 0;
  int cells = 0;
  for (size_t i = 0; i < row.size(); ++i) {
    if (expected[i] == 0) {
      EXPECT_EQ(counts[i], 0) << "token " << i << " is outside";
      continue;
    }
    const double e = expected[i] * kDraws;
    if (e < 5) {
      rest_expected += e;
      rest_seen += counts[i];
      continue;
    }
    chi += (counts[i] - e) * (counts[i] - e) / e;
    ++cells;
  }
  if (rest_expected > 5) {
    chi += (rest_seen - rest_expected) * (rest_seen - rest_expected) / rest_expected;
    ++cells;
  }
  const double freedom = std::max(cells - 1, 1);
  EXPECT_LT(chi, freedom + 5 * std::sqrt(2 * freedom) + 10);
}

TEST(PhiloxBits, MatchesTheKnownAnswer) {
  EXPECT_EQ(PhiloxBits(0, 0), 0xe169c58d6627e8d5ull);  // Random123's kat_vectors, philox4x32 10
  EXPECT_NE(PhiloxBits(0, 1), PhiloxBits(0, 0));
  EXPECT_NE(PhiloxBits(1, 0), PhiloxBits(0, 0));
}

TEST(FastExp, StaysWithinItsBound) {
  for (float x = -86.9f; x <= 0; x += 0.0137f) {
    const double exact = std::exp(static_cast<double>(x));
    ASSERT_NEAR(FastExp(x) / exact, 1, 4e-7) << x;
  }
  EXPECT_EQ(FastExp(0), 1.0f);
  EXPECT_EQ(FastExp(-kInf), 0.0f);
}

TEST(ArgMax, FindsTheFirstLargestAtAnyPlace) {
  for (const int n : {1, 15, 16, 17, 511, 512, 513, 3000}) {
    for (const int at : {0, n / 2, n - 1}) {
      std::vector<float> row(n, -1);
      row[at] = 2;
      EXPECT_EQ(ArgMax(row), at) << n;
      row.back() = 2;
      EXPECT_EQ(ArgMax(row), at) << n;
    }
  }
  EXPECT_EQ(ArgMax(std::vector<float>{-kInf, -kInf, -5}), 2);
}

TEST(Sampler, IsGreedyBelowTheTemperatureLimit) {
  Sampler sampler(100);
  SamplingParams params;
  params.temperature = 0.9e-5f;
  auto row = RandomRow(100, 1);
  row[37] = 50;
  for (int i = 0; i < 20; ++i) EXPECT_EQ(SampleOnce(sampler, params, row, i), 37);
}

TEST(Sampler, DrawsFromTheSoftmax) {
  SamplingParams params;
  CheckDistribution(params, RandomRow(60, 2, 1.5f));
  params.temperature = 0.5f;
  CheckDistribution(params, RandomRow(1200, 3));
  params.temperature = 2.0f;
  CheckDistribution(params, RandomRow(700, 4));
}

TEST(Sampler, DrawsFromTopK) {
  SamplingParams params;
  for (const int k : {1, 2, 7, 40, 1100}) {
    params.top_k = k;
    CheckDistribution(params, RandomRow(1200, 5 + k));
  }
}

TEST(Sampler, KeepsTiesOfTheKthValue) {
  SamplingParams params;
  params.top_k = 2;
  Sampler sampler(6);
  const std::vector<float> row = {1, 3, 2, 2, 0, 2};
  std::map<TokenId, int> seen;
  for (int i = 0; i < 2000; ++i) ++seen[SampleOnce(sampler, params, row, 1, i)];
  EXPECT_THAT(seen, UnorderedElementsAre(testing::Key(1), testing::Key(2), testing::Key(3),
                                         testing::Key(5)));
}

TEST(Sampler, DrawsFromTopP) {
  SamplingParams params;
  for (const float p : {0.1f, 0.5f, 0.9f, 0.99f}) {
    params.top_p = p;
    CheckDistribution(params, RandomRow(700, 11));
  }
}

TEST(Sampler, KeepsAtLeastOneToken) {
  SamplingParams params;
  params.top_p = 1e-6f;
  Sampler sampler(50);
  auto row = RandomRow(50, 9);
  const TokenId best = ArgMax(row);
  for (int i = 0; i < 50; ++i) EXPECT_EQ(SampleOnce(sampler, params, row, 1, i), best);
}

TEST(Sampler, DrawsFromMinPAndFromAllFiltersTogether) {
  SamplingParams params;
  params.min_p = 0.1f;
  CheckDistribution(params, RandomRow(300, 12));
  params.min_p = 0.02f;
  params.top_k = 20;
  params.top_p = 0.8f;
  params.temperature = 1.3f;
  CheckDistribution(params, RandomRow(300, 13));
}

TEST(Sampler, DrawsByPositionAndSeedOnly) {
  Sampler sampler(200), other(200);
  SamplingParams params;
  const auto row = RandomRow(200, 20, 0.5f);
  std::vector<TokenId> first, second, reseeded;
  for (int i = 0; i < 50; ++i) first.push_back(SampleOnce(sampler, params, row, 7, i));
  for (int i = 49; i >= 0; --i) {
    SampleOnce(other, params, RandomRow(200, i), 99, i);  // something in between
    second.insert(second.begin(), SampleOnce(other, params, row, 7, i));
  }
  for (int i = 0; i < 50; ++i) reseeded.push_back(SampleOnce(sampler, params, row, 8, i));
  EXPECT_EQ(first, second);
  EXPECT_NE(first, reseeded);
}

TEST(Sampler, SurvivesARowWithOneFiniteLogit) {
  Sampler sampler(40);
  SamplingParams params;
  std::vector<float> row(40, -kInf);
  row[11] = -3;
  EXPECT_EQ(SampleOnce(sampler, params, row, 1), 11);
  params.top_p = 0.5f;
  EXPECT_EQ(SampleOnce(sampler, params, row, 1), 11);
}

TEST(Sampler, ReportsRawLogprobsWhateverWasDoneToTheRow) {
  Sampler sampler(5);
  SamplingParams params;
  params.temperature = 0;
  params.logprobs = 2;
  params.allowed_token_ids = {3};
  LogitsState state;
  state.Init(params, {}, {});
  std::vector<float> row = {std::log(0.4f), std::log(0.3f), std::log(0.15f), std::log(0.1f),
                            std::log(0.05f)};
  PositionLogprobs out;
  EXPECT_EQ(sampler.Sample(params, state, {}, 0, 0, row, &out), 3);
  ASSERT_EQ(out.size(), 3u);
  EXPECT_EQ(out[0].id, 3);
  EXPECT_EQ(out[0].rank, 4);
  EXPECT_NEAR(out[0].logprob, std::log(0.1), 1e-5);
  EXPECT_EQ(out[1].id, 0);
  EXPECT_EQ(out[1].rank, 1);
  EXPECT_NEAR(out[1].logprob, std::log(0.4), 1e-5);
  EXPECT_EQ(out[2].id, 1);
}

TEST(Sampler, GivesLogprobsOfTheWholeVocabularyThatSumToOne) {
  Sampler sampler(3000);
  PositionLogprobs out;
  const auto row = RandomRow(3000, 30);
  sampler.Logprobs(row, 17, -1, out);
  ASSERT_EQ(out.size(), 3001u);
  double total = 0;
  for (size_t i = 1; i < out.size(); ++i) {
    total += std::exp(static_cast<double>(out[i].logprob));
    if (i > 1) EXPECT_LE(out[i].logprob, out[i - 1].logprob);
    if (out[i].id == 17) {
      EXPECT_EQ(out[i].rank, out[0].rank);
    }
  }
  EXPECT_NEAR(total, 1, 1e-4);
  out.clear();
  sampler.Logprobs(row, 17, 0, out);
  EXPECT_EQ(out.size(), 1u);
}

}  // namespace
}  // namespace llmd::engine
