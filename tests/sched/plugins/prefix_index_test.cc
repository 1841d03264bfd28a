#include "plugins/producer/prefix_index.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <span>
#include <vector>

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

// What every endpoint was sent, the obvious way: lists of single blocks.
class Model {
 public:
  void Insert(std::span<const uint64_t> chain, uint32_t slot, size_t capacity) {
    if (chain.empty() || capacity == 0) return;
    std::vector<uint64_t>& list = lists_[slot];
    for (size_t i = std::min(chain.size(), capacity); i-- > 0;) {
      std::erase(list, chain[i]);
      list.insert(list.begin(), chain[i]);
    }
    if (list.size() > capacity) list.resize(capacity);
  }
  void Remove(uint32_t slot) { lists_.erase(slot); }
  uint32_t Match(std::span<const uint64_t> chain, uint32_t slot) {
    const std::vector<uint64_t>& list = lists_[slot];
    const auto lost = std::ranges::find_if(
        chain, [&](uint64_t hash) { return std::ranges::find(list, hash) == list.end(); });
    return static_cast<uint32_t>(lost - chain.begin());
  }
  size_t size() const {
    size_t all = 0;
    for (const auto& [slot, list] : lists_) all += list.size();
    return all;
  }

 private:
  std::map<uint32_t, std::vector<uint64_t>> lists_;  // most recent first
};

// Prompts that share fronts of all lengths: each hash commits to the blocks before it.
std::vector<uint64_t> RandomChain(std::mt19937_64& rng, size_t longest) {
  std::vector<uint64_t> chain(rng() % (longest + 1));
  uint64_t previous = 1;
  for (uint64_t& hash : chain)
    hash = previous = (previous + 1 + (rng() % 4 == 0)) * 0x9e3779b97f4a7c15;
  return chain;
}

TEST(PrefixIndex, AgreesWithListsOfSingleBlocksUnderRandomWork) {
  constexpr uint32_t kSlots = 5;
  std::mt19937_64 rng(7);
  PrefixIndex index;
  Model model;
  for (int round = 0; round < 20'000; ++round) {
    const auto slot = static_cast<uint32_t>(rng() % kSlots);
    if (rng() % 500 == 0) {
      index.Remove(slot);
      model.Remove(slot);
    } else {
      const size_t capacity = rng() % 50 == 0 ? rng() % 30 : 30 + slot * 20;
      const std::vector<uint64_t> chain = RandomChain(rng, 16);
      index.Insert(chain, slot, capacity);
      model.Insert(chain, slot, capacity);
    }
    ASSERT_EQ(index.size(), model.size()) << round;
    const std::vector<uint64_t> probe = RandomChain(rng, 20);
    const std::vector<uint32_t> counts = Match(index, probe, kSlots);
    for (uint32_t s = 0; s < kSlots; ++s)
      ASSERT_EQ(counts[s], model.Match(probe, s)) << round << ", slot " << s;
  }
}

// No two blocks of real chains have one hash, unless a client found two texts that do: it may spoil
// what is known of its own prompts, and nothing else.
TEST(PrefixIndex, ClashingHashesLoseHintsOnly) {
  std::mt19937_64 rng(11);
  PrefixIndex index;
  for (int round = 0; round < 20'000; ++round) {
    std::vector<uint64_t> chain(rng() % 12);
    for (uint64_t& hash : chain) hash = rng() % 6;
    const auto slot = static_cast<uint32_t>(rng() % 3);
    index.Insert(chain, slot, 20);
    ASSERT_LE(index.size(), 60u);
    for (uint32_t count : Match(index, chain, 3)) ASSERT_LE(count, chain.size());
  }
  for (uint32_t slot : {0u, 1u, 2u}) index.Remove(slot);
  EXPECT_EQ(index.size(), 0u);
  EXPECT_THAT(Match(index, {1, 2, 3}, 3), ElementsAre(0u, 0u, 0u));
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

}  // namespace
}  // namespace llmd::sched
