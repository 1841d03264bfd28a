// RunIndex says what FlatIndex says, whatever happens, and keeps its invariants.
#include "index/run_index.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <numeric>
#include <thread>

#include "kv/index_world.h"
#include "perf/count_allocations.h"

namespace llmd::kv {
namespace {

size_t RandomOps() {
  const char* text = std::getenv("LLMD_KV_RANDOM_OPS");
  return text == nullptr ? 100'000 : static_cast<size_t>(std::atoll(text));
}

const RunIndex& Runs(Played& played) {
  return static_cast<const RunIndex&>(played.index());
}

void ExpectEqual(World& world, Played& run, Played& flat, const WorldOp& op) {
  std::vector<size_t> engines(kWorldEngines);
  std::iota(engines.begin(), engines.end(), 0);
  std::shuffle(engines.begin(), engines.end(), std::mt19937(world.Below(1000)));
  engines.resize(1 + world.Below(kWorldEngines));
  if (world.Below(8) == 0) engines.push_back(engines[0]);
  const auto got = run.Score(op.ns, op.keys, engines), want = flat.Score(op.ns, op.keys, engines);
  for (size_t i = 0; i < engines.size(); ++i) {
    ASSERT_EQ(got[i].blocks, want[i].blocks) << "engine " << engines[i];
    ASSERT_EQ(got[i].score, want[i].score) << "engine " << engines[i];
    ASSERT_EQ(got[i].tier_blocks, want[i].tier_blocks) << "engine " << engines[i];
  }
  ASSERT_EQ(run.index().BlocksOf(run.endpoint(op.engine)),
            flat.index().BlocksOf(flat.endpoint(op.engine)));
  if (const auto key = world.HeldEngineKey(op.engine, op.ns)) {
    const auto named = flat.index().RequestKeyOf(flat.ns(op.ns), *key);
    ASSERT_TRUE(named.has_value());
    ASSERT_EQ(run.index().RequestKeyOf(run.ns(op.ns), *key), named);
  }
}

class Differential : public ::testing::TestWithParam<size_t> {};

TEST_P(Differential, RunIndexSaysWhatFlatIndexSays) {
  World world(GetParam(), GetParam() % 4 == 3 ? 9000 : 90);
  Played run(MakeRunIndex()), flat(MakeFlatIndex());
  const size_t ops = GetParam() % 4 == 3 ? RandomOps() / 200 : RandomOps() / 4;
  size_t hits = 0;
  for (size_t i = 0; i < ops; ++i) {
    const WorldOp op = world.Next();
    if (op.kind == WorldOp::kQuery) {
      ExpectEqual(world, run, flat, op);
      if (HasFatalFailure()) FAIL() << "operation " << i;
      hits += run.Score(op.ns, op.keys, {op.engine})[0].blocks;
    } else {
      const Status got = run.Apply(op), want = flat.Apply(op);
      ASSERT_EQ(got.code(), want.code()) << "operation " << i << ", kind " << op.kind << ": "
                                         << got.ToString() << " / " << want.ToString();
    }
    if (i % 997 == 0) {
      const Status right = Runs(run).CheckInvariants();
      ASSERT_TRUE(right.ok()) << "operation " << i << ": " << right.ToString();
    }
  }
  EXPECT_GT(hits, ops / 10) << "the queries must find something";
  EXPECT_EQ(run.index().Stats().blocks, flat.index().Stats().blocks);
  EXPECT_EQ(run.index().Stats().holder_blocks, flat.index().Stats().holder_blocks);
  for (size_t e = 0; e < kWorldEngines; ++e) run.index().RemoveEndpoint(run.endpoint(e));
  const Status right = Runs(run).CheckInvariants();
  EXPECT_TRUE(right.ok()) << right.ToString();
  EXPECT_EQ(run.index().Stats().runs, 0u);
}

class Snapshot : public ::testing::Test {
 protected:
  Snapshot() {
    for (int i = 0; i < 6000; ++i) {
      const WorldOp op = world_.Next();
      if (op.kind != WorldOp::kQuery) (void)played_.Apply(op).ok();
    }
    played_.index().NoteSequence(played_.endpoint(0), 77);
    const Status saved = played_.index().Save([&](std::span<const uint8_t> bytes) {
      bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
      return OkStatus();
    });
    EXPECT_TRUE(saved.ok()) << saved.ToString();
  }
  static Status Restore(Index& index, std::span<const uint8_t> bytes) {
    size_t at = 0;
    return index.Restore([&](std::span<uint8_t> into) -> Status {
      if (into.size() > bytes.size() - at) return Status(StatusCode::kDataLoss, "the end");
      std::ranges::copy(bytes.subspan(at, into.size()), into.begin());
      at += into.size();
      return OkStatus();
    });
  }
  std::vector<PrefixMatch> Scores(Index& index, size_t ns, std::span<const uint64_t> keys) {
    std::vector<EndpointId> ids;
    for (size_t e = 0; e < kWorldEngines; ++e)
      ids.push_back(index.FindEndpoint(played_.index().EndpointName(played_.endpoint(e))));
    std::vector<PrefixMatch> out(ids.size());
    index.Score(played_.ns(ns), keys, Candidates(ids), out);
    return out;
  }
  World world_{11};
  Played played_{MakeRunIndex()};
  std::vector<uint8_t> bytes_;
};

TEST_F(Snapshot, TheRestoredIndexSaysTheSameAndGoesOn) {
  RunIndex restored({});
  const Status status = Restore(restored, bytes_);
  ASSERT_TRUE(status.ok()) << status.ToString();
  const Status right = restored.CheckInvariants();
  EXPECT_TRUE(right.ok()) << right.ToString();
  EXPECT_EQ(restored.Stats().holder_blocks, played_.index().Stats().holder_blocks);
  EXPECT_EQ(restored.Stats().runs, played_.index().Stats().runs);
  const EndpointId first = restored.FindEndpoint(played_.index().EndpointName(played_.endpoint(0)));
  EXPECT_EQ(restored.Position(first), played_.index().Position(played_.endpoint(0)));
  EXPECT_EQ(restored.Position(first).sequence, 77u);
  size_t hits = 0;
  for (int i = 0; i < 4000; ++i) {
    const WorldOp op = world_.Next();
    if (op.kind == WorldOp::kQuery) {
      const auto got = Scores(restored, op.ns, op.keys);
      ASSERT_EQ(got, Scores(played_.index(), op.ns, op.keys)) << i;
      for (const PrefixMatch& match : got) hits += match.blocks;
    } else if (op.kind == WorldOp::kEvict || op.kind == WorldOp::kStore) {
      const auto endpoint =
          restored.FindEndpoint(played_.index().EndpointName(played_.endpoint(op.engine)));
      const Holder holder{
          endpoint,
          static_cast<TierId>(*restored.AddTier(std::array{"gpu", "cpu", "disk"}[op.tier]))};
      const uint64_t epoch = restored.Position(endpoint).epoch;
      const NamespaceId ns = played_.ns(op.ns);
      const Status did =
          op.kind == WorldOp::kEvict
              ? restored.Evict(ns, op.engine_keys, holder, epoch)
              : restored.Add({ns, op.parent, op.keys, op.engine_keys}, holder, epoch);
      ASSERT_EQ(did.code(), played_.Apply(op).code()) << i;
    }
  }
  EXPECT_GT(hits, 1000u);
}

TEST_F(Snapshot, DamageIsFound) {
  for (size_t cut : {size_t{0}, size_t{5}, bytes_.size() / 2, bytes_.size() - 1}) {
    RunIndex index({});
    EXPECT_EQ(Restore(index, std::span(bytes_).first(cut)).code(), StatusCode::kDataLoss) << cut;
  }
  std::mt19937_64 rng(1);
  for (int i = 0; i < 300; ++i) {
    auto bytes = bytes_;
    bytes[rng() % bytes.size()] ^= static_cast<uint8_t>(1 + rng() % 255);
    RunIndex index({});
    EXPECT_FALSE(Restore(index, bytes).ok()) << i;
  }
}

TEST_F(Snapshot, GoesIntoAnEmptyIndexOnly) {
  EXPECT_EQ(Restore(played_.index(), bytes_).code(), StatusCode::kFailedPrecondition);
  const auto flat = MakeFlatIndex();
  EXPECT_EQ(Restore(*flat, bytes_).code(), StatusCode::kUnimplemented);
}

TEST_F(Snapshot, ThroughAFile) {
  const std::string path = ::testing::TempDir() + "/kv-index-snapshot";
  ASSERT_TRUE(SaveIndex(played_.index(), path).ok());
  RunIndex restored({});
  const Status status = RestoreIndex(restored, path);
  ASSERT_TRUE(status.ok()) << status.ToString();
  EXPECT_EQ(restored.Stats().holder_blocks, played_.index().Stats().holder_blocks);
  RunIndex other({});
  EXPECT_EQ(RestoreIndex(other, path + ".part").code(), StatusCode::kNotFound);
  ASSERT_EQ(std::remove(path.c_str()), 0);
}

TEST(RunIndexScore, AllocatesNothingOnceItsThreadIsWarm) {
  World world(5);
  Played played(MakeRunIndex());
  std::vector<WorldOp> queries;
  for (int i = 0; i < 5000; ++i) {
    const WorldOp op = world.Next();
    if (op.kind != WorldOp::kQuery) (void)played.Apply(op).ok();
    if (op.kind == WorldOp::kQuery) queries.push_back(op);
  }
  std::vector<EndpointId> ids;
  for (size_t e = 0; e < kWorldEngines; ++e) ids.push_back(played.endpoint(e));
  const Candidates candidates(ids);
  std::vector<PrefixMatch> out(ids.size());
  const auto ask = [&] {
    for (const WorldOp& q : queries) played.index().Score(played.ns(q.ns), q.keys, candidates, out);
  };
  ask();
  const size_t before = g_allocations.load();
  ask();
  EXPECT_EQ(g_allocations.load(), before);
}

TEST(RunIndexMemory, WhatIsClearedIsGivenBack) {
  RunIndex index({});
  const NamespaceId ns = *index.AddNamespace({});
  const TierId gpu = *index.AddTier("gpu");
  std::mt19937_64 rng(2);
  const size_t empty = index.Stats().bytes;
  size_t full = 0;
  for (int life = 0; life < 12; ++life) {
    const EndpointId endpoint = *index.AddEndpoint("a");
    for (int chain = 0; chain < 400; ++chain) {
      std::vector<uint64_t> keys(200);
      for (uint64_t& key : keys) key = rng();
      ASSERT_TRUE(index.Add({ns, {}, keys, keys}, {endpoint, gpu}).ok());
    }
    full = std::max(full, index.Stats().bytes);
    index.RemoveEndpoint(endpoint);
  }
  const Status right = index.CheckInvariants();
  EXPECT_TRUE(right.ok()) << right.ToString();
  EXPECT_LT(full, empty + 80'000 * 80) << "engine keys of lives that ended are swept out";
}

INSTANTIATE_TEST_SUITE_P(Seeds, Differential, ::testing::Range<size_t>(0, 4));

}  // namespace
}  // namespace llmd::kv
