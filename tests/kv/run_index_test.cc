// RunIndex says what FlatIndex says, whatever happens, and keeps its invariants.
#include "index/run_index.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <numeric>
#include <thread>

#include "kv/index_world.h"

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

INSTANTIATE_TEST_SUITE_P(Seeds, Differential, ::testing::Range<size_t>(0, 4));

}  // namespace
}  // namespace llmd::kv
