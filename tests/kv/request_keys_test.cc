#include "llmd/kv/request_keys.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <random>
#include <thread>

namespace llmd::kv {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::vector<uint32_t> Range(uint32_t first, size_t count) {
  std::vector<uint32_t> tokens(count);
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

std::unique_ptr<RequestHasher> Hasher(std::string_view algorithm = "cbor-fnv",
                                      std::string_view seed = "") {
  auto hasher = MakeRequestHasher(algorithm, seed);
  EXPECT_TRUE(hasher.ok()) << hasher.status().ToString();
  return std::move(*hasher);
}

std::vector<std::string> Texts(const BlockExtras& extras, size_t block) {
  const auto texts = extras.Of(block);
  return {texts.begin(), texts.end()};
}

TEST(BlockExtras, MediaReachIntoBlocksByTheirOffsets) {
  const BlockExtras extras(
      std::vector<MediaSpan>{{"late", 40, 25}, {"early", 3, 14}, {"none", 9, 0}}, "pepper", 16);
  EXPECT_THAT(Texts(extras, 0), ElementsAre("early", "pepper"));
  EXPECT_THAT(Texts(extras, 1), ElementsAre("early"));
  EXPECT_THAT(Texts(extras, 2), ElementsAre("late"));
  EXPECT_THAT(Texts(extras, 3), ElementsAre("late"));
  EXPECT_THAT(Texts(extras, 4), ElementsAre("late"));
  EXPECT_THAT(Texts(extras, 5), IsEmpty());
  EXPECT_THAT(Texts(extras, 1000), IsEmpty());
}

TEST(BlockExtras, SaysWhatCountingByHandSays) {
  std::mt19937_64 rng(3);
  for (int round = 0; round < 200; ++round) {
    std::vector<MediaSpan> media;
    for (size_t i = rng() % 6; i > 0; --i)
      media.push_back({"m" + std::to_string(i), rng() % 33 * 6 + i, rng() % 90});
    const size_t width = 1 + rng() % 20;
    const BlockExtras extras(media, "", width);
    std::ranges::sort(media, {}, &MediaSpan::offset);
    for (size_t block = 0; block * width < 320; ++block) {
      std::vector<std::string> want;
      for (const MediaSpan& m : media)
        if (m.offset < (block + 1) * width && m.offset + m.length > block * width && m.length > 0)
          want.push_back(m.hash);
      ASSERT_EQ(Texts(extras, block), want) << block;
    }
  }
}

TEST(BlockExtras, NothingBesideTokensIsEmpty) {
  EXPECT_TRUE(BlockExtras().empty());
  EXPECT_TRUE(BlockExtras({}, "", 16).empty());
  EXPECT_FALSE(BlockExtras({}, "salt", 16).empty());
}

TEST(RequestKeys, MatchesV3AndLeavesThePartialBlockOut) {
  const auto hasher = Hasher();
  std::vector<uint64_t> keys = {5};
  RequestKeys(*hasher, hasher->Init("test-model"), Range(1, 47), 16, {}, nullptr, keys);
  EXPECT_THAT(keys, ElementsAre(5, 9540012594951042066u, 16921089685996993662u));
}

// A picture of 391 tokens in Qwen2-VL's template, blocks of 4.
TEST(RequestKeys, MatchesV2) {
  std::vector<uint32_t> tokens = {151644, 8948,   198, 2610,   525, 264, 10950, 17847,
                                  13,     151645, 198, 151644, 872, 198, 151652};
  tokens.insert(tokens.end(), 391, 151655);
  for (uint32_t token : {151653, 3838, 374, 304, 419, 2168, 30, 151645, 198, 151644, 77091, 198})
    tokens.push_back(token);
  ASSERT_EQ(tokens.size(), 418u);
  const BlockExtras extras(
      std::vector<MediaSpan>{
          {"f9a38a66df90291515d7ea4de3175b262c1da7668ad1cc32e3dbb98be86388ac", 15, 391}},
      "", 4);
  const auto hasher = Hasher();
  std::vector<uint64_t> keys;
  RequestKeys(*hasher, hasher->Init("Qwen/Qwen2-VL-2B-Instruct"), tokens, 4, extras, nullptr, keys);
  ASSERT_EQ(keys.size(), 104u);
  EXPECT_EQ(keys[0], 0xc3bf05790f422f47u);
  EXPECT_EQ(keys[1], 0xff0c0a9eb95b87ccu);
  EXPECT_EQ(keys[2], 0x99550d577537f9f3u);
  EXPECT_EQ(keys[3], 0x9aa30b0444712b0au);
  EXPECT_EQ(keys[12], 0xccad0ec671caf146u);
  EXPECT_EQ(keys[103], 0xb34057dd9ecec7fdu);
}

class Memo : public ::testing::Test {
 protected:
  std::vector<uint64_t> Keys(std::span<const uint32_t> tokens, const BlockExtras& extras = {},
                             KeyMemo* memo = nullptr, std::string_view model = "m") {
    std::vector<uint64_t> keys;
    RequestKeys(*hasher_, hasher_->Init(model), tokens, kWidth, extras, memo, keys);
    return keys;
  }
  static constexpr size_t kWidth = 4, kSegment = kWidth * KeyMemo::kBlocks;
  const std::unique_ptr<RequestHasher> hasher_ = Hasher("xxh64");
  KeyMemo memo_{1 << 20};
};

TEST_F(Memo, TheNextTurnHashesOnlyItsTail) {
  auto tokens = Range(1, 5 * kSegment + 9);
  EXPECT_EQ(Keys(tokens, {}, &memo_), Keys(tokens));
  EXPECT_EQ(memo_.hits(), 0u);
  EXPECT_EQ(memo_.misses(), 5u);
  const auto more = Range(90'000, 2 * kSegment);
  tokens.insert(tokens.end(), more.begin(), more.end());
  EXPECT_EQ(Keys(tokens, {}, &memo_), Keys(tokens));
  EXPECT_EQ(memo_.hits(), 5u);
  EXPECT_EQ(memo_.misses(), 7u);
}

TEST_F(Memo, ModelsSaltsAndMediaAreKeptApart) {
  const auto tokens = Range(1, 3 * kSegment);
  const BlockExtras plain, salt({}, "salt", kWidth), other({}, "tlas", kWidth);
  const BlockExtras early(std::vector<MediaSpan>{{"pic", 0, 4}}, "", kWidth);
  const BlockExtras late(std::vector<MediaSpan>{{"pic", kSegment + 40, 4}}, "", kWidth);
  const BlockExtras later(std::vector<MediaSpan>{{"pic", kSegment + 44, 4}}, "", kWidth);
  for (int round = 0; round < 2; ++round) {
    for (const BlockExtras* extras : {&plain, &salt, &other, &early, &late, &later})
      EXPECT_EQ(Keys(tokens, *extras, &memo_), Keys(tokens, *extras));
    EXPECT_EQ(Keys(tokens, {}, &memo_, "n"), Keys(tokens, {}, nullptr, "n"));
  }
  EXPECT_EQ(memo_.hits(), 2u + 7 * 3) << "late and later share their first segment with plain";
}

TEST_F(Memo, ASegmentAfterAnotherPrefixIsAnother) {
  auto one = Range(1, 2 * kSegment), two = one;
  two[0] = 77;
  EXPECT_EQ(Keys(one, {}, &memo_), Keys(one));
  EXPECT_EQ(Keys(two, {}, &memo_), Keys(two));
  EXPECT_EQ(memo_.hits(), 0u);
}

TEST_F(Memo, ATableThatIsFullStaysRightAndKeepsWhatIsUsed) {
  KeyMemo small(1);  // one set of four
  const auto kept = Range(7, kSegment);
  Keys(kept, {}, &small);
  for (uint32_t i = 1; i < 100; ++i) {
    const auto tokens = Range(1000 * i, kSegment);
    ASSERT_EQ(Keys(tokens, {}, &small), Keys(tokens));
    ASSERT_EQ(Keys(kept, {}, &small), Keys(kept));
  }
  EXPECT_EQ(small.hits(), 99u);
}

TEST_F(Memo, ManyThreadsAgree) {
  std::vector<std::thread> threads;
  for (uint32_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937_64 rng(t);
      for (int i = 0; i < 200; ++i) {
        const auto tokens = Range(static_cast<uint32_t>(rng() % 16), 4 * kSegment);
        ASSERT_EQ(Keys(tokens, {}, &memo_), Keys(tokens));
      }
    });
  }
  for (std::thread& t : threads) t.join();
}

TEST(PairHashes, MatchV17) {
  std::vector<BlockPair> pairs;
  PairHashes(Range(1, 47), 16, PairSeed("", ""), pairs);
  ASSERT_EQ(pairs.size(), 2u);
  EXPECT_EQ(pairs[0].local, 16863443419780771464u);
  EXPECT_EQ(pairs[0].rolling, pairs[0].local);
  EXPECT_EQ(pairs[1].rolling, 12466389667045779788u);
}

TEST(PairHashes, LoraAndSaltMoveTheSeedOfLocalHashesOnly) {
  EXPECT_EQ(PairSeed("", ""), 1337u);
  EXPECT_EQ(PairSeed("adapter", "pepper"), 17660584829533191532u);
  std::vector<BlockPair> both, salted;
  PairHashes(Range(1, 16), 16, PairSeed("adapter", "pepper"), both);
  PairHashes(Range(1, 16), 16, PairSeed("", "pepper"), salted);
  EXPECT_EQ(both[0].local, 12465313012222447720u);
  EXPECT_EQ(salted[0].local, 6386793543226407092u);
}

}  // namespace
}  // namespace llmd::kv
