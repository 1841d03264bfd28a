// What every index must hold.
#include "llmd/kv/index.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <random>
#include <thread>

#include "llmd/kv/speculation.h"

namespace llmd::kv {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Optional;

using Keys = std::vector<uint64_t>;

struct Backend {
  const char* name;
  std::unique_ptr<Index> (*make)(const IndexOptions&);
};

template <typename Options, auto kMake>
std::unique_ptr<Index> Make(const IndexOptions& options) {
  Options of_backend;
  static_cast<IndexOptions&>(of_backend) = options;
  return kMake(of_backend);
}

class EveryIndex : public ::testing::TestWithParam<Backend> {
 protected:
  void SetUp() override { Use({}); }
  void Use(const IndexOptions& options) {
    index_ = GetParam().make(options);
    ns_ = *index_->AddNamespace({"m"});
    gpu_ = *index_->AddTier("gpu");
    cpu_ = *index_->AddTier("cpu");
    for (const char* name : {"a", "b", "c"}) ids_.push_back(*index_->AddEndpoint(name));
  }
  EndpointId Id(const std::string& name) { return *index_->AddEndpoint(name); }
  Holder Gpu(const std::string& endpoint) { return {Id(endpoint), gpu_}; }
  Holder Cpu(const std::string& endpoint) { return {Id(endpoint), cpu_}; }
  Holder Guess(const std::string& endpoint) { return {Id(endpoint), TierId::kSpeculative}; }
  Status Add(Keys keys, Holder holder, Keys engine = {}, std::optional<uint64_t> parent = {},
             uint64_t epoch = 0) {
    return index_->Add({ns_, parent, keys, engine}, holder, epoch);
  }
  void Evict(Keys engine, Holder holder) {
    const Status status = index_->Evict(ns_, engine, holder);
    EXPECT_TRUE(status.ok()) << status.ToString();
  }
  PrefixMatch Match(const std::string& endpoint, Keys keys, std::optional<NamespaceId> ns = {}) {
    const EndpointId id = index_->FindEndpoint(endpoint);
    PrefixMatch out;
    index_->Score(ns.value_or(ns_), keys, Candidates({&id, 1}), {&out, 1});
    return out;
  }
  uint32_t Blocks(const std::string& endpoint, Keys keys, std::optional<NamespaceId> ns = {}) {
    return Match(endpoint, std::move(keys), ns).blocks;
  }
  uint32_t TierBlocks(const std::string& endpoint, Keys keys, TierId tier) {
    return Match(endpoint, std::move(keys)).tier_blocks[static_cast<size_t>(tier)];
  }

  std::unique_ptr<Index> index_;
  NamespaceId ns_{};
  TierId gpu_{}, cpu_{};
  std::vector<EndpointId> ids_;
};

TEST_P(EveryIndex, CountsTheRunFromTheFirstBlock) {
  ASSERT_TRUE(Add({1, 2, 3, 4}, Gpu("a"), {11, 12, 13, 14}).ok());
  ASSERT_TRUE(Add({1, 2}, Gpu("b"), {11, 12}).ok());
  EXPECT_EQ(Blocks("a", {1, 2, 3, 4}), 4u);
  EXPECT_EQ(Blocks("b", {1, 2, 3, 4}), 2u);
  EXPECT_EQ(Blocks("c", {1, 2, 3, 4}), 0u);
  EXPECT_EQ(Blocks("a", {1, 2, 9, 4}), 2u);
  EXPECT_EQ(Blocks("a", {}), 0u);
  EXPECT_EQ(index_->Stats().holder_blocks, 6u);
  EXPECT_EQ(index_->Stats().blocks, 4u);
}

TEST_P(EveryIndex, ScoreSumsTheBestTierOfEveryBlock) {
  const TierId disk = *index_->AddTier("disk");
  ASSERT_TRUE(Add({1, 2, 3, 4}, Gpu("a"), {11, 12, 13, 14}).ok());
  ASSERT_TRUE(Add({1, 2, 3}, Cpu("b"), {11, 12, 13}).ok());
  ASSERT_TRUE(Add({1, 2, 3}, Cpu("c"), {11, 12, 13}).ok());
  ASSERT_TRUE(Add({1}, Gpu("c"), {11}).ok());
  ASSERT_TRUE(Add({3}, Gpu("c"), {13}, 12).ok());
  ASSERT_TRUE(Add({1, 2}, {Id("d"), disk}, {11, 12}).ok());
  ASSERT_TRUE(Add({1, 2}, Guess("e")).ok());
  const Keys all = {1, 2, 3, 4};
  EXPECT_DOUBLE_EQ(Match("a", all).score, 4);
  EXPECT_DOUBLE_EQ(Match("b", all).score, 2.4);
  EXPECT_DOUBLE_EQ(Match("c", all).score, 1 + 0.8 + 1);
  EXPECT_DOUBLE_EQ(Match("d", all).score, 2);
  EXPECT_DOUBLE_EQ(Match("e", all).score, 2);
  EXPECT_EQ(Blocks("c", all), 3u);
  EXPECT_EQ(TierBlocks("c", all, cpu_), 3u);
  EXPECT_EQ(TierBlocks("c", all, gpu_), 1u);
  EXPECT_EQ(TierBlocks("a", all, cpu_), 0u);
  EXPECT_EQ(TierBlocks("e", all, TierId::kSpeculative), 2u);
}

TEST_P(EveryIndex, AnswersInTheOrderOfItsCandidates) {
  ASSERT_TRUE(Add({1, 2}, Gpu("a"), {11, 12}).ok());
  ASSERT_TRUE(Add({1}, Gpu("c"), {11}).ok());
  const std::vector<EndpointId> ids = {ids_[2], EndpointId::kNone, ids_[0], ids_[2]};
  std::vector<PrefixMatch> out(4);
  index_->Score(ns_, Keys{1, 2}, Candidates(ids), out);
  EXPECT_EQ(out[0].blocks, 1u);
  EXPECT_EQ(out[1].blocks, 0u);
  EXPECT_EQ(out[2].blocks, 2u);
  EXPECT_EQ(out[3], out[0]);
  EXPECT_EQ(Candidates(ids).PlaceOf(ids_[1]), Candidates::kAbsent);
}

TEST_P(EveryIndex, EvictionTakesFromTheHolderAndTierThatItNames) {
  ASSERT_TRUE(Add({1, 2, 3}, Gpu("a"), {11, 12, 13}).ok());
  ASSERT_TRUE(Add({1, 2, 3}, Cpu("a"), {11, 12, 13}).ok());
  ASSERT_TRUE(Add({1, 2, 3}, Gpu("b"), {11, 12, 13}).ok());
  Evict({13, 12}, Gpu("a"));
  EXPECT_EQ(Blocks("a", {1, 2, 3}), 3u);
  EXPECT_EQ(TierBlocks("a", {1, 2, 3}, gpu_), 1u);
  Evict({12}, Cpu("a"));
  EXPECT_EQ(Blocks("a", {1, 2, 3}), 1u) << "behind a hole nothing counts";
  EXPECT_EQ(Blocks("b", {1, 2, 3}), 3u);
  ASSERT_TRUE(Add({2}, Gpu("a"), {12}, 11).ok());
  EXPECT_EQ(Blocks("a", {1, 2, 3}), 3u) << "a healed hole brings its tail back";
  Evict({11, 12, 13, 99}, Gpu("b"));
  EXPECT_EQ(Blocks("b", {1, 2, 3}), 0u);
  EXPECT_EQ(index_->BlocksOf(Id("a")), 4u);
}

TEST_P(EveryIndex, BranchesShareTheirPrefix) {
  ASSERT_TRUE(Add({1, 2, 3, 4}, Gpu("a"), {11, 12, 13, 14}).ok());
  ASSERT_TRUE(Add({7, 8}, Gpu("a"), {17, 18}, 12).ok());
  EXPECT_EQ(Blocks("a", {1, 2, 7, 8}), 4u);
  EXPECT_EQ(Blocks("a", {1, 2, 3, 4}), 4u);
}

TEST_P(EveryIndex, EngineKeysNameRequestKeysOfOtherSizes) {
  ASSERT_TRUE(Add({1, 2, 3}, Gpu("a"), {10, 20, 30}).ok());
  EXPECT_THAT(index_->RequestKeyOf(ns_, 20), Optional(2u));
  ASSERT_TRUE(Add({1, 2, 3, 4}, Gpu("b"), {100, 200}).ok());  // an engine block is two
  EXPECT_THAT(index_->RequestKeyOf(ns_, 100), Optional(2u));
  EXPECT_THAT(index_->RequestKeyOf(ns_, 200), Optional(4u));
  ASSERT_TRUE(Add({5}, Gpu("b"), {51, 52}, 200).ok());  // two engine blocks are one
  EXPECT_THAT(index_->RequestKeyOf(ns_, 51), Optional(5u));
  EXPECT_THAT(index_->RequestKeyOf(ns_, 52), Optional(5u));
  EXPECT_EQ(index_->RequestKeyOf(ns_, 999), std::nullopt);
  Evict({200}, Gpu("b"));
  EXPECT_EQ(Blocks("b", {1, 2, 3, 4, 5}), 2u);
  EXPECT_THAT(index_->RequestKeyOf(ns_, 200), Optional(3u))
      << "of its keys one is still held, by a";
  Evict({10, 20, 30}, Gpu("a"));
  EXPECT_EQ(index_->RequestKeyOf(ns_, 200), std::nullopt);
}

TEST_P(EveryIndex, TwoModelsWithEqualNumbersDoNotMeet) {
  const NamespaceId other = *index_->AddNamespace({"n"});
  const NamespaceId lora = *index_->AddNamespace({"m", "adapter"});
  ASSERT_TRUE(Add({1, 2}, Gpu("a"), {11, 12}).ok());
  const Keys keys = {1, 5}, engine = {11, 12};
  ASSERT_TRUE(index_->Add({other, {}, keys, engine}, Gpu("a")).ok());
  EXPECT_EQ(Blocks("a", {1, 5}), 1u);
  EXPECT_EQ(Blocks("a", {1, 5}, other), 2u);
  EXPECT_EQ(Blocks("a", {1, 5}, lora), 0u);
  EXPECT_THAT(index_->RequestKeyOf(ns_, 12), Optional(2u));
  EXPECT_THAT(index_->RequestKeyOf(other, 12), Optional(5u));
  const Keys last = {12};
  ASSERT_TRUE(index_->Evict(other, last, Gpu("a")).ok());
  EXPECT_EQ(Blocks("a", {1, 2}), 2u);
}

TEST_P(EveryIndex, GroupsOfOneModelShareBlocksButNotRemovals) {
  const NamespaceId one = *index_->AddNamespace({"m", "", 1});
  ASSERT_TRUE(Add({1, 2}, Gpu("a"), {11, 12}).ok());
  const Keys keys = {1, 2}, engine = {11, 12};
  ASSERT_TRUE(index_->Add({one, {}, keys, engine}, Gpu("a")).ok());
  ASSERT_TRUE(index_->Evict(one, engine, Gpu("a")).ok());
  EXPECT_EQ(Blocks("a", {1, 2}, one), 2u);
  Evict({11}, Gpu("a"));
  EXPECT_EQ(Blocks("a", {1, 2}, one), 0u);
}

TEST_P(EveryIndex, SaysWhatIsWrongWithAnAdd) {
  EXPECT_EQ(Add({}, Gpu("a")).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(Add({1}, {EndpointId::kNone, gpu_}).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(Add({1}, Gpu("a"), {}, 7).code(), StatusCode::kInvalidArgument);
  const Status orphan = Add({2}, Gpu("a"), {12}, 11);
  EXPECT_EQ(orphan.code(), StatusCode::kNotFound);
  EXPECT_THAT(orphan.message(), HasSubstr("engine key 11"));
  EXPECT_EQ(index_->Stats().holder_blocks, 0u);
}

TEST_P(EveryIndex, ClearForgetsOneEndpoint) {
  ASSERT_TRUE(Add({1, 2}, Gpu("a"), {11, 12}).ok());
  ASSERT_TRUE(Add({1}, Cpu("a"), {11}).ok());
  ASSERT_TRUE(Add({1}, Gpu("b"), {11}).ok());
  ASSERT_TRUE(index_->Clear(Id("a")).ok());
  EXPECT_EQ(Blocks("a", {1, 2}), 0u);
  EXPECT_EQ(Blocks("b", {1, 2}), 1u);
  EXPECT_EQ(index_->BlocksOf(Id("a")), 0u);
  EXPECT_FALSE(index_->Clear(EndpointId::kNone).ok());
}

TEST_P(EveryIndex, ALaterEpochEndsTheLifeBefore) {
  ASSERT_TRUE(Add({8}, Guess("a")).ok());
  ASSERT_TRUE(Add({1, 2}, Gpu("a"), {11, 12}, {}, 3).ok());
  EXPECT_EQ(Blocks("a", {8}), 1u) << "its first life ends nothing";
  index_->NoteSequence(Id("a"), 41);
  EXPECT_EQ(index_->Position(Id("a")), (SourcePosition{3, 41}));
  ASSERT_TRUE(Add({5}, Gpu("a"), {15}, {}, 4).ok());
  EXPECT_EQ(Blocks("a", {1, 2}) + Blocks("a", {8}), 0u);
  EXPECT_EQ(Blocks("a", {5}), 1u);
  EXPECT_EQ(index_->Position(Id("a")), (SourcePosition{4, 0}));
  const Status late = Add({6}, Gpu("a"), {16}, {}, 3);
  EXPECT_EQ(late.code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(late.message(), HasSubstr("'a': epoch 3 is over"));
  EXPECT_TRUE(Add({1}, Guess("a")).ok()) << "a guess belongs to no life";
}

TEST_P(EveryIndex, NumbersOfEndpointsAreGivenOutAgain) {
  const EndpointId before = Id("a");
  ASSERT_TRUE(Add({1}, Gpu("a"), {11}).ok());
  index_->RemoveEndpoint(before);
  EXPECT_EQ(index_->FindEndpoint("a"), EndpointId::kNone);
  for (size_t i = 0; i < kMaxEndpoints + 5000; ++i) {
    const auto id = index_->AddEndpoint("pod-" + std::to_string(i));
    ASSERT_TRUE(id.ok()) << id.status().ToString();
    ASSERT_NE(*id, before);
    if (i % 1000 == 0) ASSERT_TRUE(Add({1, 2}, {*id, gpu_}, {11, 12}).ok());
    index_->RemoveEndpoint(*id);
  }
  EXPECT_EQ(index_->Stats().holder_blocks, 0u);
  PrefixMatch out;
  ASSERT_TRUE(Add({1}, Gpu("b"), {11}).ok());
  index_->Score(ns_, Keys{1}, Candidates({&before, 1}), {&out, 1});
  EXPECT_EQ(out.blocks, 0u) << "an old id is nobody's";
}

TEST_P(EveryIndex, ThereIsAnEndToNumbers) {
  size_t made = 0;
  StatusOr<EndpointId> id = EndpointId::kNone;
  while ((id = index_->AddEndpoint("pod-" + std::to_string(made))).ok() && made <= kMaxEndpoints)
    ++made;
  EXPECT_EQ(id.status().code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(id.status().message(), HasSubstr("the most it takes"));
  index_->RemoveEndpoint(Id("pod-7"));
  EXPECT_TRUE(index_->AddEndpoint("another").ok());
  for (size_t i = 2; i < kMaxTiers - 1; ++i)
    ASSERT_TRUE(index_->AddTier("tier-" + std::to_string(i)).ok());
  EXPECT_EQ(index_->AddTier("one too many").status().code(), StatusCode::kResourceExhausted);
}

TEST_P(EveryIndex, AnEndpointHoldsNoMoreThanItsCap) {
  Use({.max_blocks_per_endpoint = 3});
  ASSERT_TRUE(Add({1, 2, 3}, Gpu("a"), {11, 12, 13}).ok());
  const Status full = Add({4}, Gpu("a"), {14}, 13);
  EXPECT_EQ(full.code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(full.message(), HasSubstr("'a' holds 3 blocks"));
  EXPECT_TRUE(Add({1, 2, 3}, Gpu("b"), {11, 12, 13}).ok());
  Evict({13}, Gpu("a"));
  EXPECT_TRUE(Add({4}, Gpu("a"), {14}, 13).ok());
}

TEST_P(EveryIndex, GuessesEndUnlessALaterOneCoversThem) {
  Speculation guesses(*index_);
  const auto at = [](int s) { return TimePoint() + std::chrono::seconds(s); };
  ASSERT_TRUE(Add({1}, Gpu("a"), {11}).ok());
  ASSERT_TRUE(guesses.Guess(ns_, Keys{1, 2, 3, 4}, Id("a"), at(2)).ok());
  ASSERT_TRUE(guesses.Guess(ns_, Keys{1, 2, 5}, Id("a"), at(3)).ok());
  ASSERT_TRUE(guesses.Guess(ns_, Keys{1, 2, 3}, Id("b"), at(2)).ok());
  EXPECT_EQ(guesses.Expire(at(1)), 0u);
  EXPECT_EQ(guesses.Expire(at(2)), 2u + 3u);
  EXPECT_EQ(Blocks("a", {1, 2, 3, 4}), 2u);
  EXPECT_EQ(Blocks("a", {1, 2, 5}), 3u);
  EXPECT_EQ(Blocks("b", {1, 2, 3}), 0u);
  EXPECT_EQ(guesses.Expire(at(9)), 3u);
  EXPECT_EQ(Blocks("a", {1, 2, 5}), 1u) << "what events said stays";
  EXPECT_EQ(guesses.size(), 0u);
  ASSERT_TRUE(guesses.Guess(ns_, Keys{1, 2}, Id("b"), at(9)).ok());
  index_->RemoveEndpoint(Id("b"));
  guesses.Forget(ids_[1]);
  EXPECT_EQ(guesses.Expire(at(99)), 0u);
  EXPECT_FALSE(guesses.Guess(ns_, Keys{1, 2}, ids_[1], at(9)).ok());
}

TEST_P(EveryIndex, GuessesAreBounded) {
  Speculation guesses(*index_, 2);
  const auto at = [](int s) { return TimePoint() + std::chrono::seconds(s); };
  for (uint64_t i = 1; i <= 3; ++i)
    ASSERT_TRUE(guesses.Guess(ns_, Keys{i}, Id("a"), at(static_cast<int>(i))).ok());
  EXPECT_EQ(guesses.size(), 2u);
  EXPECT_EQ(Blocks("a", {1}), 0u);
  EXPECT_EQ(Blocks("a", {2}), 1u);
}

TEST_P(EveryIndex, ManyThreadsWriteAndRead) {
  std::vector<std::thread> threads;
  for (size_t t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937_64 rng(t);
      const EndpointId me = *index_->AddEndpoint("writer-" + std::to_string(t));
      for (int round = 0; round < 150; ++round) {
        const uint64_t chain = 1000 * (1 + rng() % 5);
        Keys keys(1 + rng() % 60), tail;
        std::iota(keys.begin(), keys.end(), chain);
        EXPECT_TRUE(index_->Add({ns_, {}, keys, keys}, {me, gpu_}, 1).ok());
        tail.assign(keys.rbegin(), keys.rbegin() + static_cast<ptrdiff_t>(keys.size() / 2));
        EXPECT_TRUE(index_->Evict(ns_, tail, {me, gpu_}, 1).ok());
        if (round % 50 == 49) EXPECT_TRUE(index_->Clear(me).ok());
      }
      index_->RemoveEndpoint(me);
    });
  }
  for (size_t t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937_64 rng(100 + t);
      std::vector<EndpointId> ids(8);
      std::vector<PrefixMatch> out(8);
      for (int round = 0; round < 300; ++round) {
        for (size_t i = 0; i < 8; ++i) ids[i] = index_->FindEndpoint("writer-" + std::to_string(i));
        const Candidates candidates(ids);
        Keys keys(60);
        std::iota(keys.begin(), keys.end(), 1000 * (1 + rng() % 5));
        index_->Score(ns_, keys, candidates, out);
        for (const PrefixMatch& match : out) {
          ASSERT_LE(match.blocks, 60u);
          ASSERT_EQ(match.score, match.blocks);
        }
      }
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(index_->Stats().holder_blocks, 0u);
}

INSTANTIATE_TEST_SUITE_P(
    Contract, EveryIndex,
    ::testing::Values(Backend{"flat", &Make<FlatIndexOptions, &MakeFlatIndex>},
                      Backend{"costaware", &Make<CostAwareIndexOptions, &MakeCostAwareIndex>},
                      Backend{"run", &Make<RunIndexOptions, &MakeRunIndex>}),
    [](const auto& param) { return std::string(param.param.name); });

// Endpoint "a" holds the keys; returns what it holds afterwards of each alone.
class Bounded : public ::testing::Test {
 protected:
  void Use(std::unique_ptr<Index> index) {
    index_ = std::move(index);
    ns_ = *index_->AddNamespace({});
    gpu_ = *index_->AddTier("gpu");
  }
  void Add(const std::string& endpoint, const Keys& keys) {
    ASSERT_TRUE(index_->Add({ns_, {}, keys, keys}, {*index_->AddEndpoint(endpoint), gpu_}).ok());
  }
  uint32_t Blocks(const std::string& endpoint, const Keys& keys) {
    const EndpointId id = index_->FindEndpoint(endpoint);
    PrefixMatch out;
    index_->Score(ns_, keys, Candidates({&id, 1}), {&out, 1});
    return out.blocks;
  }
  std::unique_ptr<Index> index_;
  NamespaceId ns_{};
  TierId gpu_{};
};

TEST_F(Bounded, FlatTheOldestHolderGivesWayWhereACapIsNamed) {
  FlatIndexOptions options;
  options.max_holders_per_key = 2;
  Use(MakeFlatIndex(options));
  for (const char* name : {"a", "b", "a", "c"}) Add(name, {1});
  EXPECT_EQ(Blocks("a", {1}) + Blocks("c", {1}), 2u);
  EXPECT_EQ(Blocks("b", {1}), 0u);
  EXPECT_EQ(index_->BlocksOf(index_->FindEndpoint("b")), 0u);
}

TEST_F(Bounded, FlatStaysBoundedAndKeepsWhatIsUsed) {
  FlatIndexOptions options;
  options.max_keys = 64 * 16;
  Use(MakeFlatIndex(options));
  Add("a", {42});
  for (uint64_t key = 1000; key < 60'000; ++key) {
    Add("b", {key});
    if (key % 2 == 0) ASSERT_EQ(Blocks("a", {42}), 1u) << key;
  }
  EXPECT_LE(index_->Stats().blocks, 64u * 16);
  EXPECT_GE(index_->Stats().blocks, 64u * 15);
}

TEST_F(Bounded, CostAwareKeepsItsBytes) {
  CostAwareIndexOptions options;
  options.max_bytes = 1 << 20;
  Use(MakeCostAwareIndex(options));
  Add("a", {42});
  for (uint64_t key = 1000; key < 40'000; ++key) {
    Add("b", {key});
    if (key % 2 == 0) ASSERT_EQ(Blocks("a", {42}), 1u) << key;
    if (key % 1000 == 0) ASSERT_LE(index_->Stats().bytes, options.max_bytes);
  }
  EXPECT_GT(index_->Stats().bytes, options.max_bytes * 9 / 10);
  EXPECT_EQ(index_->Stats().evicted + index_->Stats().holder_blocks, 39'001u);
}

TEST_F(Bounded, RunIndexKeepsItsBytesAndTrimsTailsFirst) {
  RunIndexOptions options;
  options.max_bytes = size_t{6} << 20;
  Use(MakeRunIndex(options));
  Keys used(300), shared(200);
  std::iota(used.begin(), used.end(), 1);
  std::iota(shared.begin(), shared.end(), 1'000'000);
  Add("a", used);
  size_t added = 300;
  for (uint64_t chain = 1; chain < 2000; ++chain) {
    Keys keys = shared;
    keys.resize(600);
    std::iota(keys.begin() + 200, keys.end(), chain << 32);
    Add("b", keys);
    added += chain == 1 ? 600 : 400;
    ASSERT_EQ(Blocks("a", used), 300u) << "asked for all the time";
    ASSERT_LE(index_->Stats().bytes, options.max_bytes) << chain;
    ASSERT_GE(Blocks("b", keys), 200u) << "a prefix that others continue stays";
  }
  const IndexStats stats = index_->Stats();
  EXPECT_GT(stats.bytes, options.max_bytes / 2);
  EXPECT_EQ(stats.evicted + stats.holder_blocks, added);
}

}  // namespace
}  // namespace llmd::kv
