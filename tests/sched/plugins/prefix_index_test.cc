#include "plugins/producer/prefix_index.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <unordered_map>

namespace llmd::sched {
namespace {

using ::testing::ElementsAre;

std::vector<uint32_t> Match(const PrefixIndex& index, std::vector<uint64_t> chain, size_t slots) {
  std::vector<uint32_t> counts(slots, 0);
  index.Match(chain, counts);
  return counts;
}

TEST(PrefixIndex, MatchesContiguouslyAndIgnoresWhatFollowsAHole) {
  PrefixIndex index;
  index.Insert(std::vector<uint64_t>{1, 2, 3}, 0, 100);
  index.Insert(std::vector<uint64_t>{1}, 70, 100);
  index.Insert(std::vector<uint64_t>{9, 2, 3}, 1, 100);  // has 2 and 3, not 1
  std::vector<uint32_t> counts = Match(index, {1, 2, 3, 4}, 71);
  EXPECT_EQ(counts[0], 3u);
  EXPECT_EQ(counts[1], 0u);
  EXPECT_EQ(counts[70], 1u);
}

TEST(PrefixIndex, LongChainsKeepTheirFrontAndFreeTheRest) {
  PrefixIndex index;
  index.Insert(std::vector<uint64_t>{1, 2, 3, 4, 5, 6}, 0, 4);
  EXPECT_EQ(index.size(), 4u);
  EXPECT_THAT(Match(index, {1, 2, 3, 4, 5, 6}, 1), ElementsAre(4u));
  index.Insert(std::vector<uint64_t>{10, 11}, 0, 4);
  EXPECT_EQ(index.size(), 4u);
  EXPECT_THAT(Match(index, {1, 2, 3, 4}, 1), ElementsAre(2u));  // the tail went first
  EXPECT_THAT(Match(index, {10, 11}, 1), ElementsAre(2u));
}

TEST(PrefixIndex, RemoveForgetsOneEndpointOnly) {
  PrefixIndex index;
  index.Insert(std::vector<uint64_t>{1, 2}, 0, 10);
  index.Insert(std::vector<uint64_t>{1, 2}, 1, 10);
  index.Remove(0);
  index.Remove(5);
  EXPECT_THAT(Match(index, {1, 2}, 2), ElementsAre(0u, 2u));
  EXPECT_EQ(index.size(), 2u);
}

// A list of the obvious kind beside it.
TEST(BlockLru, AgreesWithAPlainListUnderRandomWork) {
  std::mt19937_64 rng(7);
  BlockLru lru;
  std::vector<uint64_t> model;  // most recent first
  for (int round = 0; round < 3'000; ++round) {
    const size_t capacity = round % 500 < 250 ? 50 : 20 + rng() % 200;
    std::vector<uint64_t> chain, fresh, expected_fresh, expected_old;
    std::vector<BlockLru::Block> old;
    // Equal low halves: tags that clash and long probe runs.
    for (size_t n = rng() % 20; chain.size() < n;) {
      const uint64_t hash = (rng() % 40 << 32) | (rng() % 16 << 3);
      if (std::find(chain.begin(), chain.end(), hash) == chain.end()) chain.push_back(hash);
    }
    const auto shrink = [&] {
      for (; model.size() > capacity; model.pop_back()) expected_old.push_back(model.back());
    };
    shrink();
    for (size_t i = chain.size(); i-- > 0;) {
      const auto at = std::find(model.begin(), model.end(), chain[i]);
      if (at == model.end()) {
        expected_fresh.push_back(chain[i]);
      } else {
        model.erase(at);
      }
      model.insert(model.begin(), chain[i]);
      shrink();
    }
    lru.Touch(chain, 3, capacity, fresh, old);
    ASSERT_EQ(fresh, expected_fresh);
    ASSERT_EQ(old.size(), expected_old.size());
    for (size_t i = 0; i < old.size(); ++i) ASSERT_EQ(old[i].hash, expected_old[i]);
    ASSERT_EQ(lru.size(), model.size());
  }
  std::vector<BlockLru::Block> old;
  lru.Evict(0, old);
  ASSERT_EQ(old.size(), model.size());
  for (const BlockLru::Block& block : old) {
    EXPECT_EQ(block.hash, model.back());
    EXPECT_EQ(block.shard, 3);
    model.pop_back();
  }
}

TEST(PrefixIndex, AChainThatPushesOutItsOwnFrontKeepsIt) {
  PrefixIndex index;
  index.Insert(std::vector<uint64_t>{1, 2}, 0, 4);
  index.Insert(std::vector<uint64_t>{8, 9}, 0, 4);
  // 1 and 2 are the oldest when 3 and 4 come, and are in the chain themselves.
  index.Insert(std::vector<uint64_t>{1, 2, 3, 4}, 0, 4);
  EXPECT_THAT(Match(index, {1, 2, 3, 4}, 1), ElementsAre(4u));
  EXPECT_THAT(Match(index, {8, 9}, 1), ElementsAre(0u));
  EXPECT_EQ(index.size(), 4u);
}

TEST(HashMap, AgreesWithAStandardMapUnderRandomWork) {
  std::mt19937_64 rng(5);
  HashMap map;
  std::unordered_map<uint64_t, uint64_t> model;
  for (int i = 0; i < 20'000; ++i) {
    // Few distinct low bits make long probe runs.
    const uint64_t key = (rng() % 400) << 3;
    if (rng() % 3 == 0) {
      map.Erase(key);
      model.erase(key);
    } else {
      map.At(key) = model[key] = rng();
    }
    ASSERT_EQ(map.size(), model.size());
  }
  for (uint64_t k = 0; k < 400; ++k) {
    const uint64_t* found = map.Find(k << 3);
    ASSERT_EQ(found != nullptr, model.contains(k << 3));
    if (found) EXPECT_EQ(*found, model[k << 3]);
  }
}

}  // namespace
}  // namespace llmd::sched
