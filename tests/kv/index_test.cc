// What every index must hold, and the scorer over it.
#include "llmd/kv/index.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>
#include <thread>

#include "llmd/kv/prefix_score.h"

namespace llmd::kv {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Optional;

using Factory = std::unique_ptr<Index> (*)(FlatIndexOptions);

class EveryIndex : public ::testing::TestWithParam<Factory> {
 protected:
  std::unique_ptr<Index> Make(FlatIndexOptions options = {}) { return GetParam()(options); }
  static IndexEntry Gpu(std::string endpoint) { return {std::move(endpoint), "gpu"}; }
  static Status Add(Index& index, std::vector<uint64_t> keys, std::vector<IndexEntry> entries,
                    std::vector<uint64_t> engine = {}) {
    return index.Add(engine, keys, entries);
  }
  static void Evict(Index& index, uint64_t key, IndexKey kind, IndexEntry entry) {
    index.Evict(key, kind, {&entry, 1});
  }
  // Holders of one key as "endpoint/tier", sorted.
  static std::vector<std::string> Holders(Index& index, uint64_t key) {
    std::vector<std::string> out;
    index.Walk({&key, 1}, [&](size_t, std::span<const IndexHolder> holders) {
      for (const IndexHolder& h : holders) {
        for (const char* name : {"a", "b", "c", "d"}) {
          if (index.EndpointNumber(name) == h.endpoint)
            out.push_back(std::string(name) + "/" + index.TierName(h.tier) +
                          (h.speculative ? "?" : ""));
        }
      }
      return true;
    });
    std::sort(out.begin(), out.end());
    return out;
  }
};

TEST_P(EveryIndex, AddsAndForgetsHoldings) {
  auto index = Make();
  for (const char* name : {"a", "b", "c", "d"}) index->EndpointNumber(name);
  ASSERT_TRUE(Add(*index, {1, 2}, {Gpu("a"), {"b", "cpu"}}).ok());
  EXPECT_THAT(Holders(*index, 1), ElementsAre("a/gpu", "b/cpu"));
  ASSERT_TRUE(Add(*index, {1}, {Gpu("a"), {"a", "", true}}).ok());
  EXPECT_THAT(Holders(*index, 1), ElementsAre("a/?", "a/gpu", "b/cpu"));
  Evict(*index, 1, IndexKey::kRequest, Gpu("a"));
  Evict(*index, 1, IndexKey::kRequest, Gpu("b"));  // not in that tier
  EXPECT_THAT(Holders(*index, 1), ElementsAre("a/?", "b/cpu"));
  EXPECT_EQ(index->size(), 2u);
  index->Clear("b");
  index->Clear("nobody");
  EXPECT_THAT(Holders(*index, 1), ElementsAre("a/?"));
  EXPECT_THAT(Holders(*index, 2), ElementsAre("a/gpu"));
  Evict(*index, 2, IndexKey::kRequest, Gpu("a"));
  Evict(*index, 7, IndexKey::kRequest, Gpu("a"));
  EXPECT_EQ(index->size(), 1u);
}

TEST_P(EveryIndex, RefusesNothingToAdd) {
  auto index = Make();
  EXPECT_FALSE(Add(*index, {}, {Gpu("a")}).ok());
  EXPECT_FALSE(Add(*index, {1}, {}).ok());
}

TEST_P(EveryIndex, EngineKeysNameRequestKeysOfOtherSizes) {
  auto index = Make();
  ASSERT_TRUE(Add(*index, {1, 2, 3}, {Gpu("a")}, {10, 20, 30}).ok());
  EXPECT_THAT(index->RequestKeyOf(20), Optional(2u));
  ASSERT_TRUE(Add(*index, {1, 2, 3, 4}, {Gpu("a")}, {100, 200}).ok());  // an engine block is two
  EXPECT_THAT(index->RequestKeyOf(100), Optional(2u));
  EXPECT_THAT(index->RequestKeyOf(200), Optional(4u));
  ASSERT_TRUE(Add(*index, {8}, {Gpu("a")}, {81, 82}).ok());  // two engine blocks are one
  EXPECT_THAT(index->RequestKeyOf(81), Optional(8u));
  EXPECT_THAT(index->RequestKeyOf(82), Optional(8u));
  EXPECT_EQ(index->RequestKeyOf(999), std::nullopt);
}

TEST_P(EveryIndex, EvictionByEngineKeyTakesItsRequestKeys) {
  auto index = Make();
  for (const char* name : {"a", "b", "c", "d"}) index->EndpointNumber(name);
  ASSERT_TRUE(Add(*index, {1, 2, 3, 4}, {Gpu("a")}, {100, 200}).ok());
  ASSERT_TRUE(Add(*index, {2}, {Gpu("b")}).ok());
  Evict(*index, 100, IndexKey::kEngine, Gpu("a"));
  EXPECT_THAT(Holders(*index, 1), IsEmpty());
  EXPECT_THAT(Holders(*index, 2), ElementsAre("b/gpu"));
  EXPECT_THAT(Holders(*index, 3), ElementsAre("a/gpu"));
  EXPECT_THAT(index->RequestKeyOf(100), Optional(2u)) << "its keys are not all empty";
  Evict(*index, 100, IndexKey::kEngine, Gpu("b"));
  EXPECT_EQ(index->RequestKeyOf(100), std::nullopt);
  Evict(*index, 12345, IndexKey::kEngine, Gpu("a"));
}

TEST_P(EveryIndex, TheWalkEndsAtTheFirstKeyNobodyHolds) {
  auto index = Make();
  ASSERT_TRUE(Add(*index, {1, 2, 4}, {Gpu("a")}).ok());
  std::vector<size_t> seen;
  const std::vector<uint64_t> keys = {1, 2, 3, 4};
  index->Walk(keys, [&](size_t i, std::span<const IndexHolder>) {
    seen.push_back(i);
    return true;
  });
  EXPECT_THAT(seen, ElementsAre(0, 1));
  seen.clear();
  index->Walk(keys, [&](size_t i, std::span<const IndexHolder>) {
    seen.push_back(i);
    return false;
  });
  EXPECT_THAT(seen, ElementsAre(0));
  index->Walk({}, [&](size_t, std::span<const IndexHolder>) { return ADD_FAILURE(), true; });
}

TEST_P(EveryIndex, TheOldestHolderGivesWay) {
  auto index = Make({.max_keys = 1000, .max_holders_per_key = 2});
  for (const char* name : {"a", "b", "c", "d"}) index->EndpointNumber(name);
  ASSERT_TRUE(Add(*index, {1}, {Gpu("a"), Gpu("b")}).ok());
  ASSERT_TRUE(Add(*index, {1}, {Gpu("a")}).ok());  // young again
  ASSERT_TRUE(Add(*index, {1}, {Gpu("c")}).ok());
  EXPECT_THAT(Holders(*index, 1), ElementsAre("a/gpu", "c/gpu"));
}

TEST_P(EveryIndex, StaysBoundedAndKeepsWhatIsUsed) {
  auto index = Make({.max_keys = 64 * 16, .max_holders_per_key = 2});
  for (const char* name : {"a", "b", "c", "d"}) index->EndpointNumber(name);
  ASSERT_TRUE(Add(*index, {42}, {Gpu("a")}, {42}).ok());
  for (uint64_t key = 1000; key < 60'000; ++key) {
    ASSERT_TRUE(Add(*index, {key}, {Gpu("b")}, {key}).ok());
    if (key % 2 == 0) ASSERT_THAT(Holders(*index, 42), ElementsAre("a/gpu")) << key;
  }
  EXPECT_LE(index->size(), 64u * 16);
  EXPECT_GE(index->size(), 64u * 15);
}

TEST_P(EveryIndex, ManyThreadsAddWalkAndClear) {
  auto index = Make({.max_keys = 4096});
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937_64 rng(t);
      std::vector<uint64_t> keys(16);
      const IndexEntry mine = Gpu("e" + std::to_string(t));
      for (int round = 0; round < 400; ++round) {
        std::iota(keys.begin(), keys.end(), rng() % 5000);
        ASSERT_TRUE(index->Add(keys, keys, {&mine, 1}).ok());
        index->Walk(keys, [](size_t, std::span<const IndexHolder> h) { return !h.empty(); });
        index->Evict(keys[3], IndexKey::kEngine, {&mine, 1});
        if (round % 100 == 99) index->Clear(mine.endpoint);
      }
      index->Clear(mine.endpoint);
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(index->size(), 0u);
}

INSTANTIATE_TEST_SUITE_P(Contract, EveryIndex, ::testing::Values(&MakeFlatIndex),
                         [](const auto&) { return "flat"; });

class PrefixScoreTest : public ::testing::Test {
 protected:
  void Add(const std::string& endpoint, const std::string& tier, std::vector<uint64_t> keys) {
    const IndexEntry entry{endpoint, tier, tier.empty()};
    ASSERT_TRUE(index_->Add({}, keys, {&entry, 1}).ok());
  }
  PrefixMatch Of(const std::string& endpoint) {
    const uint32_t number = index_->EndpointNumber(endpoint);
    std::vector<PrefixMatch> matches(number + 1);
    scorer_.Score(*index_, keys_, matches);
    return matches[number];
  }
  const std::unique_ptr<Index> index_ = MakeFlatIndex();
  const PrefixScorer scorer_{{{"gpu", 1.0}, {"cpu", 0.8}}};
  const std::vector<uint64_t> keys_ = {1, 2, 3, 4};
};

TEST_F(PrefixScoreTest, SumsTheBestTierOfTheRunFromTheFirstBlock) {
  Add("gpu", "gpu", {1, 2, 3, 4});
  Add("cpu", "cpu", {1, 2, 3});
  Add("both", "gpu", {1, 3});
  Add("both", "cpu", {1, 2, 3});
  Add("late", "gpu", {2, 3, 4});
  Add("hole", "gpu", {1, 3, 4});
  Add("other", "disk", {1});
  Add("guess", "", {1, 2});
  EXPECT_DOUBLE_EQ(Of("gpu").score, 4);
  EXPECT_DOUBLE_EQ(Of("cpu").score, 2.4);
  EXPECT_DOUBLE_EQ(Of("both").score, 1 + 0.8 + 1);
  EXPECT_DOUBLE_EQ(Of("late").score, 0);
  EXPECT_DOUBLE_EQ(Of("hole").score, 1);
  EXPECT_DOUBLE_EQ(Of("other").score, 1);
  EXPECT_DOUBLE_EQ(Of("guess").score, 2);
  EXPECT_EQ(Of("cpu").blocks, 3u);
  EXPECT_EQ(Of("cpu").cpu_run, 3u);
  EXPECT_EQ(Of("both").blocks, 3u);
  EXPECT_EQ(Of("both").cpu_run, 3u);
  EXPECT_EQ(Of("gpu").cpu_run, 0u);
}

TEST_F(PrefixScoreTest, ACpuRunEndsWithItsOwnHole) {
  Add("x", "gpu", {1, 2, 3, 4});
  Add("x", "cpu", {1, 3, 4});
  EXPECT_EQ(Of("x").blocks, 4u);
  EXPECT_EQ(Of("x").cpu_run, 1u);
}

TEST_F(PrefixScoreTest, AgreesWithCountingByHand) {
  std::mt19937_64 rng(5);
  for (int round = 0; round < 60; ++round) {
    const auto index = MakeFlatIndex({.max_holders_per_key = 100});
    std::vector<uint64_t> keys(1 + rng() % 30);
    std::iota(keys.begin(), keys.end(), 100);
    constexpr size_t kEndpoints = 9;
    bool held[kEndpoints][2][30] = {};
    for (size_t e = 0; e < kEndpoints; ++e) {
      for (size_t k = 0; k < keys.size(); ++k) {
        for (int tier : {0, 1}) {
          if (rng() % 4 == 0) continue;
          const IndexEntry entry{"e" + std::to_string(e), tier ? "cpu" : "gpu"};
          ASSERT_TRUE(index->Add({}, {&keys[k], 1}, {&entry, 1}).ok());
          held[e][tier][k] = true;
        }
      }
    }
    std::vector<PrefixMatch> matches(kEndpoints);
    for (size_t e = 0; e < kEndpoints; ++e)
      ASSERT_LT(index->EndpointNumber("e" + std::to_string(e)), kEndpoints);
    scorer_.Score(*index, keys, matches);
    for (size_t e = 0; e < kEndpoints; ++e) {
      double score = 0;
      for (size_t k = 0; k < keys.size() && (held[e][0][k] || held[e][1][k]); ++k)
        score += held[e][0][k] ? 1.0 : 0.8;
      EXPECT_NEAR(matches[index->EndpointNumber("e" + std::to_string(e))].score, score, 1e-9);
    }
  }
}

}  // namespace
}  // namespace llmd::kv
