#include "llmd/engine/kv_pool.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <random>

namespace llmd::engine {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

kv::Digest D(uint64_t n) {
  kv::Digest d;
  d.size = 32;
  for (int i = 0; i < 8; ++i) d.bytes[i] = static_cast<uint8_t>(n >> (8 * i));
  return d;
}

struct Recorder : KvPoolObserver {
  void HandedOut(int32_t block) override { handed.push_back(block); }
  void Stored(const kv::Digest& parent, std::span<const kv::Digest> digests,
              std::span<const int32_t> tokens) override {
    stored += digests.size();
    stored_tokens.assign(tokens.begin(), tokens.end());
    last_parent = parent;
  }
  void Removed(const kv::Digest& digest) override { removed.push_back(digest); }
  void Cleared() override { ++cleared; }
  std::vector<int32_t> handed, stored_tokens;
  std::vector<kv::Digest> removed;
  kv::Digest last_parent;
  size_t stored = 0;
  int cleared = 0;
};

void CommitOne(KvPool& pool, int32_t block, uint64_t name) {
  const kv::Digest digest = D(name);
  const std::vector<int32_t> tokens(pool.block_size(), static_cast<int32_t>(name));
  pool.Commit({&block, 1}, {}, {&digest, 1}, tokens);
}

TEST(KvPool, HandsOutByIdAndNeverTheNullBlock) {
  KvPool pool(6, 4, true);
  EXPECT_EQ(pool.num_usable(), 5);
  EXPECT_THAT(pool.FreeList(), ElementsAre(1, 2, 3, 4, 5));
  std::vector<int32_t> got;
  ASSERT_TRUE(pool.Allocate(5, got));
  EXPECT_THAT(got, ElementsAre(1, 2, 3, 4, 5));
  EXPECT_THAT(pool.FreeList(), IsEmpty());
  EXPECT_FALSE(pool.Allocate(1, got));
  EXPECT_EQ(got.size(), 5u);
}

TEST(KvPool, GivesNothingWhenNotAllFits) {
  KvPool pool(4, 4, true);
  std::vector<int32_t> got;
  EXPECT_FALSE(pool.Allocate(4, got));
  EXPECT_THAT(got, IsEmpty());
  EXPECT_EQ(pool.num_free(), 3);
}

// The order rules in one table: which blocks are hashed, in which order requests are freed, and the
// list that results.
TEST(KvPool, OrdersTheFreeListAsVllmDoes) {
  struct Case {
    const char* name;
    std::vector<std::vector<int32_t>> frees;
    std::vector<int32_t> hashed;
    std::vector<int32_t> expected;
  };
  const std::vector<Case> cases = {
      {"unhashed go to the head, tail first, so the first ends up in front",
       {{1, 2, 3}},
       {},
       {1, 2, 3, 7, 8}},
      {"hashed go to the tail, tail of the prefix first", {{1, 2, 3}}, {1, 2, 3}, {7, 8, 3, 2, 1}},
      {"a partial last block leads", {{1, 2, 3}}, {1, 2}, {3, 7, 8, 2, 1}},
      {"later frees are evicted later", {{1, 2}, {3, 4}}, {1, 2, 3, 4}, {7, 8, 2, 1, 4, 3}},
      {"the last unhashed one is reused first", {{1, 2}, {3}}, {}, {3, 1, 2, 7, 8}},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    KvPool pool(9, 4, true);
    std::vector<int32_t> owned;
    ASSERT_TRUE(pool.Allocate(6, owned));
    for (const int32_t b : c.hashed) CommitOne(pool, b, 100 + b);
    for (const auto& blocks : c.frees) pool.Free(blocks);
    EXPECT_THAT(pool.FreeList(), testing::ElementsAreArray(c.expected));
  }
}

TEST(KvPool, WithoutCachingFreesToTheHeadAndFindsNothing) {
  KvPool pool(4, 4, false);
  std::vector<int32_t> owned, hits;
  ASSERT_TRUE(pool.Allocate(2, owned));
  CommitOne(pool, 1, 7);
  pool.Free(owned);
  EXPECT_THAT(pool.FreeList(), ElementsAre(1, 2, 3));
  const kv::Digest d = D(7);
  pool.Lookup({&d, 1}, 1, hits);
  EXPECT_THAT(hits, IsEmpty());
}

TEST(KvPool, FindsTheLongestCachedPrefixUpToTheLimit) {
  KvPool pool(8, 4, true);
  std::vector<int32_t> owned;
  ASSERT_TRUE(pool.Allocate(4, owned));
  for (const int n : {0, 1, 3}) CommitOne(pool, owned[n], 10 + n);
  const std::vector<kv::Digest> chain = {D(10), D(11), D(12), D(13)};
  std::vector<int32_t> hits;
  pool.Lookup(chain, 4, hits);
  EXPECT_THAT(hits, ElementsAre(1, 2));  // a hole ends the prefix
  hits.clear();
  pool.Lookup(chain, 1, hits);
  EXPECT_THAT(hits, ElementsAre(1));
  hits.clear();
  pool.Lookup(chain, 0, hits);
  EXPECT_THAT(hits, IsEmpty());
}

TEST(KvPool, TouchTakesACachedBlockOffTheFreeList) {
  KvPool pool(4, 4, true);
  std::vector<int32_t> owned;
  ASSERT_TRUE(pool.Allocate(1, owned));
  CommitOne(pool, 1, 5);
  pool.Free(owned);
  EXPECT_EQ(pool.num_free(), 3);
  pool.Touch(owned);
  pool.Touch(owned);
  EXPECT_EQ(pool.num_free(), 2);
  EXPECT_EQ(pool.ref_count(1), 2);
  pool.Free(owned);
  EXPECT_EQ(pool.num_free(), 2);
  pool.Free(owned);
  EXPECT_THAT(pool.FreeList(), ElementsAre(2, 3, 1));
}

TEST(KvPool, EvictsTheLeastRecentlyUsedContentAndSaysSo) {
  Recorder events;
  KvPool pool(4, 4, true, &events);
  std::vector<int32_t> owned;
  ASSERT_TRUE(pool.Allocate(3, owned));
  for (const int32_t b : owned) CommitOne(pool, b, b);
  pool.Free({{owned[0]}});
  pool.Free({{owned[1], owned[2]}});
  pool.Touch({{owned[0]}});  // used again: now it is the youngest
  pool.Free({{owned[0]}});
  events.handed.clear();
  std::vector<int32_t> next;
  ASSERT_TRUE(pool.Allocate(2, next));
  EXPECT_THAT(next, ElementsAre(3, 2));
  EXPECT_THAT(events.removed, ElementsAre(D(3), D(2)));
  EXPECT_THAT(events.handed, ElementsAre(3, 2));
  EXPECT_TRUE(pool.cached(1));
  EXPECT_EQ(pool.num_cached(), 1);
}

TEST(KvPool, KeepsSeveralBlocksOfOneContentAndFindsTheOldestThatIsLeft) {
  KvPool pool(5, 4, true);
  std::vector<int32_t> owned, hits;
  ASSERT_TRUE(pool.Allocate(2, owned));
  CommitOne(pool, 1, 9);
  CommitOne(pool, 2, 9);
  const kv::Digest d = D(9);
  pool.Lookup({&d, 1}, 1, hits);
  EXPECT_THAT(hits, ElementsAre(1));
  pool.Evict(1);
  hits.clear();
  pool.Lookup({&d, 1}, 1, hits);
  EXPECT_THAT(hits, ElementsAre(2));
}

TEST(KvPool, ReportsStoredBlocksWithParentAndTokens) {
  Recorder events;
  KvPool pool(5, 2, true, &events);
  std::vector<int32_t> owned;
  ASSERT_TRUE(pool.Allocate(2, owned));
  const std::vector<kv::Digest> digests = {D(1), D(2)};
  pool.Commit(owned, D(77), digests, std::vector<int32_t>{5, 6, 7, 8});
  EXPECT_EQ(events.stored, 2u);
  EXPECT_EQ(events.last_parent, D(77));
  EXPECT_THAT(events.stored_tokens, ElementsAre(5, 6, 7, 8));
}

TEST(KvPool, ResetsOnlyWhenNothingIsOwned) {
  Recorder events;
  KvPool pool(5, 4, true, &events);
  std::vector<int32_t> owned, hits;
  ASSERT_TRUE(pool.Allocate(1, owned));
  CommitOne(pool, 1, 3);
  EXPECT_FALSE(pool.Reset());
  EXPECT_EQ(events.cleared, 0);
  pool.Free(owned);
  EXPECT_TRUE(pool.Reset());
  EXPECT_EQ(events.cleared, 1);
  const kv::Digest d = D(3);
  pool.Lookup({&d, 1}, 1, hits);
  EXPECT_THAT(hits, IsEmpty());
  EXPECT_EQ(pool.num_cached(), 0);
}

// The same rules written with a deque and maps, for comparison.
class Oracle {
 public:
  explicit Oracle(int num_blocks) {
    for (int b = 1; b < num_blocks; ++b) free.push_back(b);
  }
  bool Allocate(size_t n, std::vector<int32_t>& out) {
    if (n > free.size()) return false;
    for (size_t i = 0; i < n; ++i) {
      const int b = free.front();
      free.pop_front();
      name.erase(b);
      refs[b] = 1;
      out.push_back(b);
    }
    return true;
  }
  void Touch(int b) {
    if (refs[b]++ == 0) std::erase(free, b);
  }
  void Free(std::vector<int32_t> blocks) {
    std::reverse(blocks.begin(), blocks.end());
    for (const int b : blocks) {
      ASSERT_GT(refs[b], 0);
      if (--refs[b] > 0) continue;
      name.contains(b) ? free.push_back(b) : free.push_front(b);
    }
  }
  std::deque<int32_t> free;
  std::map<int, int> refs;
  std::map<int, uint64_t> name;
};

TEST(KvPool, BehavesAsTheOracleOverThousandsOfRandomSteps) {
  constexpr int kBlocks = 40;
  std::mt19937 random(20261124);
  KvPool pool(kBlocks, 4, true);
  Oracle oracle(kBlocks);
  std::vector<std::vector<int32_t>> owners;
  uint64_t hits_seen = 0;
  for (int step = 0; step < 20000; ++step) {
    const int action = random() % 4;
    if (action == 0) {
      const int n = 1 + random() % 6;
      std::vector<int32_t> got, expected;
      const bool ok = pool.Allocate(n, got);
      ASSERT_EQ(ok, oracle.Allocate(n, expected));
      ASSERT_EQ(got, expected);
      if (ok) owners.push_back(got);
    } else if (action == 1 && !owners.empty()) {
      const int32_t block = owners[random() % owners.size()].front();
      if (!pool.cached(block)) {
        const uint64_t name = random() % 30;
        CommitOne(pool, block, name);
        oracle.name[block] = name;
      }
    } else if (action == 2) {
      const kv::Digest digest = D(random() % 30);
      std::vector<int32_t> hit;
      pool.Lookup({&digest, 1}, 1, hit);
      if (!hit.empty()) {
        ++hits_seen;
        ASSERT_EQ(D(oracle.name.at(hit[0])), digest);
        pool.Touch(hit);
        oracle.Touch(hit[0]);
        owners.push_back(hit);
      }
    } else if (!owners.empty()) {
      const size_t i = random() % owners.size();
      pool.Free(owners[i]);
      oracle.Free(owners[i]);
      owners.erase(owners.begin() + i);
    }
    const auto list = pool.FreeList();
    ASSERT_TRUE(std::equal(list.begin(), list.end(), oracle.free.begin(), oracle.free.end()))
        << "step " << step;
    ASSERT_EQ(pool.num_free(), static_cast<int>(list.size()));
    int owned = 0;
    for (int b = 1; b < kBlocks; ++b) {
      ASSERT_EQ(pool.ref_count(b), oracle.refs[b]);
      ASSERT_GE(pool.ref_count(b), 0);
      owned += pool.ref_count(b) > 0;
      ASSERT_EQ(pool.cached(b), oracle.name.contains(b));
    }
    ASSERT_EQ(owned + pool.num_free(), pool.num_usable());
  }
  EXPECT_GT(hits_seen, 1000u);
}

}  // namespace
}  // namespace llmd::engine
