#include "llmd/engine/batch_scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <random>

#include "engine/fake_hasher.h"

namespace llmd::engine {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr int kBlockSize = 4;

struct FakeConnector final : Connector {
  int ExternalTokens(const Sequence& s, int local) const override {
    return s.remote_pending ? std::max(0, remote_tokens - local) : 0;
  }
  void StartLoad(Sequence& s, int local, int external) override {
    s.remote_pending = false;
    loads.push_back({s.request.id, local, external});
  }
  struct Load {
    std::string id;
    int local, external;
  };
  int remote_tokens = 0;
  std::vector<Load> loads;
};

// What was planned, as "id:start+n" words; a star where a token is sampled.
std::string Show(const StepPlan& plan) {
  std::string out;
  for (const ScheduledSequence& item : plan.items) {
    out += (out.empty() ? "" : " ") + item.sequence->request.id + ":" + std::to_string(item.start) +
           "+" + std::to_string(item.num_tokens) + (item.samples ? "*" : "");
  }
  return out;
}

class World {
 public:
  explicit World(int usable_blocks, SchedulerOptions options = {})
      : pool(usable_blocks + 1, kBlockSize, true),
        scheduler(Fill(options), pool, &hasher, &connector) {}

  Sequence* Add(const std::string& id, int prompt, int max_tokens = 100, int priority = 0,
                int first_token = -1) {
    auto s = std::make_unique<Sequence>();
    s->number = next_++;
    s->request.id = id;
    s->request.priority = priority;
    s->request.sampling.max_tokens = max_tokens;
    const int base = first_token >= 0 ? first_token : 1000 * static_cast<int>(next_);
    for (int i = 0; i < prompt; ++i) s->tokens.push_back(base + i);
    s->prompt_len = prompt;
    ExtendDigests(hasher, s->tokens, kBlockSize, "", s->digests);
    scheduler.Add(s.get());
    all.push_back(std::move(s));
    return all.back().get();
  }

  // One step: plan, "run", sample 1, 2, 3 …, finish at max_tokens.
  std::string Step() {
    const StepPlan& plan = scheduler.Schedule();
    const std::string shown = Show(plan);
    preempted.clear();
    for (const Sequence* s : plan.preempted) preempted.push_back(s->request.id);
    const std::vector<ScheduledSequence> items = plan.items;
    for (const ScheduledSequence& item : items) {
      if (!item.samples) continue;
      Sequence* s = item.sequence;
      s->tokens.push_back(s->num_output() + 1);
      if (s->num_output() >= s->request.sampling.max_tokens) End(s);
    }
    return shown;
  }
  void End(Sequence* s) {
    scheduler.Remove(s);
    scheduler.FreeBlocks(s);
  }

  FakeHasher hasher;
  FakeConnector connector;
  KvPool pool;
  BatchScheduler scheduler;
  std::vector<std::unique_ptr<Sequence>> all;
  std::vector<std::string> preempted;

 private:
  static SchedulerOptions Fill(SchedulerOptions o) {
    if (o.max_model_len == 0) o.max_model_len = 1000;
    return o;
  }
  uint64_t next_ = 0;
};

SchedulerOptions WithBudget(int tokens) {
  SchedulerOptions o;
  o.max_num_batched_tokens = tokens;
  return o;
}

TEST(BatchScheduler, RunsAPromptThenOneTokenAStep) {
  World w(10);
  w.Add("a", 5, 3);
  EXPECT_EQ(w.Step(), "a:0+5*");
  EXPECT_EQ(w.Step(), "a:5+1*");
  EXPECT_EQ(w.Step(), "a:6+1*");
  EXPECT_EQ(w.Step(), "");
  EXPECT_EQ(w.pool.num_free(), 10);
}

TEST(BatchScheduler, SharesTheBudgetRunningFirstAndChunksTheRest) {
  World w(20, WithBudget(8));
  w.Add("a", 6);
  w.Add("b", 10);
  EXPECT_EQ(w.Step(), "a:0+6* b:0+2");
  EXPECT_EQ(w.Step(), "a:6+1* b:2+7");
  EXPECT_EQ(w.Step(), "a:7+1* b:9+1*");
}

TEST(BatchScheduler, LimitsAChunkByTheLongPrefillThreshold) {
  SchedulerOptions o;
  o.long_prefill_token_threshold = 4;
  World w(20, o);
  w.Add("a", 10);
  w.Add("b", 3);
  EXPECT_EQ(w.Step(), "a:0+4 b:0+3*");
  EXPECT_EQ(w.Step(), "a:4+4 b:3+1*");
  EXPECT_EQ(w.Step(), "a:8+2* b:4+1*");
}

TEST(BatchScheduler, WithoutChunkedPrefillTheHeadBlocksTheLine) {
  SchedulerOptions o = WithBudget(8);
  o.enable_chunked_prefill = false;
  World w(20, o);
  w.Add("a", 6, 1);
  w.Add("b", 7, 1);
  w.Add("c", 1, 1);
  EXPECT_EQ(w.Step(), "a:0+6*");  // c would fit, but b is before it
  EXPECT_EQ(w.Step(), "b:0+7* c:0+1*");
}

TEST(BatchScheduler, KeepsToMaxNumSeqs) {
  SchedulerOptions o;
  o.max_num_seqs = 2;
  World w(20, o);
  w.Add("a", 2, 1);
  w.Add("b", 2, 2);
  w.Add("c", 2, 1);
  EXPECT_EQ(w.Step(), "a:0+2* b:0+2*");
  EXPECT_EQ(w.Step(), "b:2+1* c:0+2*");
}

TEST(BatchScheduler, AdmitsOnlyWhatFitsWithItsWholePrompt) {
  World w(4, WithBudget(4));
  w.Add("a", 4);
  w.Add("b", 16);  // the first chunk would fit, the prompt would not
  EXPECT_EQ(w.Step(), "a:0+4*");
  EXPECT_EQ(w.Step(), "a:4+1*");
  EXPECT_EQ(w.scheduler.num_waiting(), 1);
}

TEST(BatchScheduler, FindsAPrefixButNeverTheLastToken) {
  World w(20);
  w.Add("a", 8, 1, 0, /*first_token=*/500);
  EXPECT_EQ(w.Step(), "a:0+8*");
  w.Add("b", 8, 1, 0, 500);
  EXPECT_EQ(w.Step(), "b:4+4*");  // both blocks are cached; the last is computed for its logits
  w.Add("c", 9, 1, 0, 500);
  EXPECT_EQ(w.Step(), "c:8+1*");
  EXPECT_EQ(w.scheduler.counters().prefix_queries, 25u);
  EXPECT_EQ(w.scheduler.counters().prefix_hits, 12u);
  EXPECT_EQ(w.scheduler.counters().prompt_tokens_local_compute, 13u);
}

TEST(BatchScheduler, FindsAPrefixScheduledInTheSameStep) {
  World w(20);
  Sequence* a = w.Add("a", 9, 5, 0, 500);
  Sequence* b = w.Add("b", 9, 5, 0, 500);
  EXPECT_EQ(w.Step(), "a:0+9* b:8+1*");
  EXPECT_EQ(a->blocks[0], b->blocks[0]);
  EXPECT_EQ(w.pool.ref_count(a->blocks[0]), 2);
  EXPECT_NE(a->blocks[2], b->blocks[2]);
}

TEST(BatchScheduler, FindsGeneratedBlocksToo) {
  World w(20);
  Sequence* a = w.Add("a", 6, 4, 0, 500);
  while (!w.Step().empty()) {
  }
  const std::vector<TokenId> history = a->tokens;
  Sequence* b = w.Add("b", 0);
  b->tokens = history;
  b->tokens.push_back(9);
  b->prompt_len = b->num_tokens();
  ExtendDigests(w.hasher, b->tokens, kBlockSize, "", b->digests);
  EXPECT_EQ(w.Step(), "b:8+3*");
}

TEST(BatchScheduler, PreemptsTheLastUnderFcfsAndPutsItInFront) {
  World w(4);
  w.Add("a", 7);
  w.Add("b", 7);
  Sequence* c = w.Add("c", 1);
  EXPECT_EQ(w.Step(), "a:0+7* b:0+7*");
  EXPECT_EQ(w.Step(), "a:7+1* b:7+1*");
  EXPECT_EQ(w.Step(), "a:8+1*");  // a needs a third block, b loses its two
  EXPECT_THAT(w.preempted, ElementsAre("b"));
  EXPECT_EQ(w.scheduler.num_waiting(), 2);
  EXPECT_EQ(w.scheduler.counters().preemptions, 1u);
  w.End(w.all[0].get());
  // b before c, and its prompt and output are computed again (the first block is still cached).
  EXPECT_EQ(w.Step(), "b:4+5* c:0+1*");
  EXPECT_EQ(c->preemptions, 0);
}

TEST(BatchScheduler, PreemptsItselfWhenItIsTheLast) {
  World w(2);
  Sequence* a = w.Add("a", 8);
  EXPECT_EQ(w.Step(), "a:0+8*");
  EXPECT_EQ(w.Step(), "");
  EXPECT_THAT(w.preempted, ElementsAre("a"));
  EXPECT_EQ(a->state, SequenceState::kPreempted);
  EXPECT_EQ(w.pool.num_free(), 2);
  EXPECT_EQ(w.Step(), "");  // nine tokens do not fit
}

TEST(BatchScheduler, AdmitsNobodyInAStepThatPreempts) {
  World w(4);
  w.Add("a", 8);
  w.Add("b", 8);
  w.Step();
  w.Add("c", 1);
  EXPECT_EQ(w.Step(), "a:8+1*");
  EXPECT_THAT(w.preempted, ElementsAre("b"));
}

SchedulerOptions Priorities() {
  SchedulerOptions o;
  o.priority = true;
  return o;
}

TEST(BatchScheduler, AdmitsByPriorityThenArrival) {
  SchedulerOptions o = Priorities();
  o.max_num_seqs = 3;
  World w(20, o);
  w.Add("low", 1, 1, 5);
  w.Add("first", 1, 1, 1);
  w.Add("second", 1, 1, 1);
  w.Add("top", 1, 1, -3);
  EXPECT_EQ(w.Step(), "top:0+1* first:0+1* second:0+1*");
  EXPECT_EQ(w.Step(), "low:0+1*");
}

TEST(BatchScheduler, PreemptsTheLowestPriorityEvenIfPlannedAlready) {
  World w(4, Priorities());
  Sequence* low = w.Add("low", 7, 100, 9);
  EXPECT_EQ(w.Step(), "low:0+7*");
  w.Add("high", 7, 100, 1);
  EXPECT_EQ(w.Step(), "low:7+1* high:0+7*");
  // low wants a block and gets none: it is itself the victim.
  EXPECT_EQ(w.Step(), "");
  EXPECT_THAT(w.preempted, ElementsAre("low"));
  EXPECT_EQ(low->num_computed, 0);
  EXPECT_EQ(w.Step(), "high:7+1*");
}

TEST(BatchScheduler, TakesBackAPlannedVictimsBlocksAndBudget) {
  World w(4, Priorities());
  Sequence* low = w.Add("low", 5, 100, 9);
  w.Add("high", 8, 100, 1);
  EXPECT_EQ(w.Step(), "high:0+8* low:0+5*");
  w.End(w.all[1].get());
  w.Add("next", 8, 100, 1);
  EXPECT_EQ(w.Step(), "low:5+1* next:0+8*");
  // low is planned first without a new block; next then needs one and takes low's.
  EXPECT_EQ(w.Step(), "next:8+1*");
  EXPECT_THAT(w.preempted, ElementsAre("low"));
  EXPECT_TRUE(low->blocks.empty());
}

TEST(BatchScheduler, LoadsRemoteTokensAndRunsOnlyTheRest) {
  World w(20);
  w.connector.remote_tokens = 8;
  Sequence* a = w.Add("a", 10);
  a->remote_pending = true;
  w.Add("b", 2);
  EXPECT_EQ(w.Step(), "b:0+2*");  // a does not hold up b
  ASSERT_EQ(w.connector.loads.size(), 1u);
  EXPECT_EQ(w.connector.loads[0].external, 8);
  EXPECT_EQ(a->state, SequenceState::kWaitingForRemote);
  EXPECT_EQ(a->blocks.size(), 3u);
  EXPECT_EQ(w.pool.num_cached(), 0);  // nothing may find blocks that are still being filled
  EXPECT_EQ(w.Step(), "b:2+1*");
  w.scheduler.LoadFinished(a, 8);
  EXPECT_TRUE(w.pool.cached(a->blocks[1]));
  EXPECT_EQ(w.Step(), "b:3+1* a:8+2*");
  EXPECT_EQ(a->remote_tokens, 8);
  EXPECT_EQ(w.scheduler.counters().prompt_tokens_remote, 8u);
  EXPECT_EQ(w.scheduler.counters().prompt_tokens_local_compute, 4u);
}

TEST(BatchScheduler, LoadsOnlyTheTailBehindALocalHit) {
  World w(20);
  w.Add("warm", 5, 1, 0, 500);
  w.Step();
  w.connector.remote_tokens = 12;
  Sequence* a = w.Add("a", 13, 1, 0, 500);
  a->remote_pending = true;
  w.Step();
  ASSERT_EQ(w.connector.loads.size(), 1u);
  EXPECT_EQ(w.connector.loads[0].local, 4);
  EXPECT_EQ(w.connector.loads[0].external, 8);
  w.scheduler.LoadFinished(a, 8);
  EXPECT_EQ(w.Step(), "a:12+1*");
}

TEST(BatchScheduler, TellsTheLenderWhenNothingIsNeeded) {
  World w(20);
  w.Add("warm", 9, 1, 0, 500);
  w.Step();
  w.connector.remote_tokens = 8;
  Sequence* a = w.Add("a", 9, 1, 0, 500);
  a->remote_pending = true;
  EXPECT_EQ(w.Step(), "a:8+1*");
  ASSERT_EQ(w.connector.loads.size(), 1u);
  EXPECT_EQ(w.connector.loads[0].external, 0);
}

TEST(BatchScheduler, ComputesTheLastTokenOfAFullyLoadedPrompt) {
  World w(20);
  w.connector.remote_tokens = 8;
  Sequence* a = w.Add("a", 8, 1);
  a->remote_pending = true;
  w.Step();
  w.scheduler.LoadFinished(a, 8);
  EXPECT_EQ(w.Step(), "a:7+1*");
}

TEST(BatchScheduler, ComputesFromTheFirstBadTokenAfterAFailedLoad) {
  World w(20);
  w.connector.remote_tokens = 12;
  Sequence* a = w.Add("a", 13, 1);
  a->remote_pending = true;
  w.Step();
  w.scheduler.LoadFinished(a, 4);
  EXPECT_TRUE(w.pool.cached(a->blocks[0]));
  EXPECT_FALSE(w.pool.cached(a->blocks[1]));
  EXPECT_EQ(w.Step(), "a:4+9*");
  Sequence* b = w.Add("b", 13, 1);
  b->remote_pending = true;
  w.Step();
  w.scheduler.LoadFinished(b, 0);
  EXPECT_EQ(w.Step(), "b:0+13*");
}

TEST(BatchScheduler, LetsLoadedSequencesInBeforeTheWaiting) {
  SchedulerOptions o;
  o.max_num_seqs = 1;
  World w(20, o);
  w.connector.remote_tokens = 4;
  Sequence* a = w.Add("a", 6, 1);
  a->remote_pending = true;
  w.Add("b", 2, 1);
  w.Add("c", 2, 1);
  EXPECT_EQ(w.Step(), "b:0+2*");
  w.scheduler.LoadFinished(a, 4);
  EXPECT_EQ(w.Step(), "a:4+2*");
  EXPECT_EQ(w.Step(), "c:0+2*");
}

TEST(BatchScheduler, DiscardStepForgetsWhatItCommitted) {
  World w(20);
  w.Add("a", 9, 1, 0, 500);
  const StepPlan& plan = w.scheduler.Schedule();
  EXPECT_EQ(w.pool.num_cached(), 2);
  w.scheduler.DiscardStep(plan);
  EXPECT_EQ(w.pool.num_cached(), 0);
}

TEST(BatchScheduler, RationsRowsForPromptLogprobsAndSkipsNothing) {
  SchedulerOptions o;
  o.prompt_logprob_rows = 6;
  World w(20, o);
  w.Add("warm", 9, 1, 0, 500);
  w.Step();
  Sequence* a = w.Add("a", 9, 1, 0, 500);
  a->request.sampling.prompt_logprobs = 1;
  Sequence* b = w.Add("b", 3, 1);
  b->request.sampling.prompt_logprobs = 1;
  EXPECT_EQ(w.Step(), "a:0+6 b:0+1");
  EXPECT_EQ(w.Step(), "a:6+3* b:1+2*");
}

TEST(BatchScheduler, AnUrgentOneWithoutRoomDoesNotHoldUpWhoHasItsKv) {
  SchedulerOptions o;
  o.priority = true;
  World w(4, o);
  w.connector.remote_tokens = 8;
  Sequence* a = w.Add("a", 9, 1, 5);
  a->remote_pending = true;
  EXPECT_EQ(w.Step(), "");
  w.Add("urgent", 9, 1, 1);
  w.scheduler.LoadFinished(a, 8);
  EXPECT_EQ(w.Step(), "a:8+1*");
  EXPECT_EQ(w.Step(), "urgent:0+9*");
}

// Whatever arrives: every sequence ends, nobody shares a block it writes, and all blocks come back.
TEST(BatchScheduler, EndsEverythingUnderRandomLoad) {
  for (unsigned seed = 0; seed < 60; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    const bool priority = seed % 2 == 1;
    std::mt19937 random(seed);
    SchedulerOptions o = WithBudget(16);
    o.priority = priority;
    o.max_num_seqs = 6;
    o.max_model_len = 60;
    World w(16, o);
    w.connector.remote_tokens = 8;
    std::vector<Sequence*> loading;
    int steps = 0, preemptions_seen = 0;
    for (; steps < 5000; ++steps) {
      if (w.all.size() < 200 && random() % 3 == 0) {
        const auto below = [&](unsigned n) { return static_cast<int>(random() % n); };
        const int prompt = 1 + below(30), answer = 1 + below(25), rank = below(3), base = below(4);
        Sequence* s =
            w.Add("s" + std::to_string(w.all.size()), prompt, answer, rank, base * 100);
        s->remote_pending = random() % 4 == 0;
      }
      w.Step();
      preemptions_seen += static_cast<int>(w.preempted.size());
      int owned = 0;
      std::map<int32_t, int> refs;
      for (const auto& s : w.all) {
        for (const int32_t b : s->blocks) owned += ++refs[b] == 1;
        if (s->state == SequenceState::kWaitingForRemote && random() % 3 == 0) {
          const int wanted = std::min(8, s->prompt_len / 4 * 4) - s->load_local_tokens;
          w.scheduler.LoadFinished(s.get(),
                                   std::max(0, wanted - static_cast<int>(random() % 3) * 4));
        }
      }
      for (const auto& [block, count] : refs) ASSERT_EQ(w.pool.ref_count(block), count);
      ASSERT_EQ(owned + w.pool.num_free(), w.pool.num_usable());
      if (w.all.size() == 200 && w.pool.num_free() == w.pool.num_usable() &&
          w.scheduler.num_waiting() == 0)
        break;
    }
    EXPECT_LT(steps, 5000);
    EXPECT_GT(preemptions_seen, 5);
    for (const auto& s : w.all)
      EXPECT_EQ(s->num_output(), s->request.sampling.max_tokens) << s->request.id;
  }
}

}  // namespace
}  // namespace llmd::engine
