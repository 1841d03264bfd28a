#include "llmd/engine/engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <thread>

#include "engine/harness.h"

namespace llmd::engine {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

TEST(Engine, GivesTheReferencesTokensAndFreesItsBlocks) {
  Harness h;
  const Result r = h.Run("a", Prompt(11), 20);
  EXPECT_EQ(r.tokens, h.model->Reference(Prompt(11), 20));
  EXPECT_EQ(r.finish, FinishReason::kLength);
  EXPECT_EQ(r.outputs, 20);
  const EngineStats s = h.engine->Stats();
  EXPECT_EQ(s.free_blocks, s.total_blocks);
  EXPECT_EQ(s.running + s.waiting, 0);
  EXPECT_EQ(s.prompt_tokens, 11u);
  EXPECT_EQ(s.generation_tokens, 20u);
  EXPECT_EQ(s.prompt_tokens_local_compute, 11u);
  EXPECT_EQ(s.steps, 20u);
}

TEST(Engine, GivesTheSameTokensInCompany) {
  Harness h;
  Gate gate;
  h.model->SetHook(gate.Hook());
  ASSERT_TRUE(h.Submit("first", Prompt(3), 12).ok());
  gate.Await();
  for (int i = 0; i < 15; ++i)
    ASSERT_TRUE(h.Submit("r" + std::to_string(i), Prompt(2 + i % 5, i), 12).ok());
  gate.Open();
  for (int i = 0; i < 15; ++i) {
    EXPECT_EQ(h.client.Wait("r" + std::to_string(i)).tokens,
              h.model->Reference(Prompt(2 + i % 5, i), 12))
        << i;
  }
  EXPECT_EQ(h.client.Wait("first").tokens, h.model->Reference(Prompt(3), 12));
  EXPECT_EQ(h.engine->Stats().max_rows_in_step, 16);
}

TEST(Engine, GivesTheSameTokensWhenPrefillIsChunked) {
  EngineOptions o = Harness::Options();
  o.max_num_batched_tokens = 5;
  Harness h(o);
  EXPECT_EQ(h.Run("a", Prompt(43), 9).tokens, h.model->Reference(Prompt(43), 9));
  EXPECT_EQ(h.engine->Stats().steps, 9u + 8u);
}

TEST(Engine, GivesTheSameTokensAfterPreemption) {
  for (const char* policy : {"fcfs", "priority"}) {
    EngineOptions o = Harness::Options(12);
    o.scheduling_policy = policy;
    Harness h(o);
    Gate gate;
    h.model->SetHook(gate.Hook());
    for (int i = 0; i < 4; ++i) {
      Request r = h.Make("r" + std::to_string(i), Prompt(6 + i, i), 24);
      r.priority = (i * 3) % 4;
      ASSERT_TRUE(h.engine->Submit(std::move(r)).ok());
    }
    gate.Open();
    for (int i = 0; i < 4; ++i) {
      EXPECT_EQ(h.client.Wait("r" + std::to_string(i)).tokens,
                h.model->Reference(Prompt(6 + i, i), 24))
          << i;
    }
    EXPECT_GT(h.engine->Stats().preemptions, 0u);
    EXPECT_TRUE(h.AllBlocksFree());
  }
}

TEST(Engine, TakesAKnownPrefixFromTheCache) {
  Harness h;
  EXPECT_EQ(h.Run("a", Prompt(30), 6).cached_tokens, 0);
  auto longer = Prompt(30);
  longer.push_back(1);
  longer.push_back(2);
  const Result r = h.Run("b", longer, 6);
  EXPECT_EQ(r.cached_tokens, 28);
  EXPECT_EQ(r.tokens, h.model->Reference(longer, 6));
  EXPECT_EQ(h.engine->Stats().prompt_tokens_local_cache, 28u);
  EXPECT_EQ(h.engine->Stats().prefix_hits, 28u);
  Request salted = h.Make("c", longer, 6);
  salted.cache_salt = "someone else";
  EXPECT_EQ(h.Run(std::move(salted)).cached_tokens, 0);
}

TEST(Engine, CachesNothingWhenToldNotTo) {
  EngineOptions o = Harness::Options();
  o.enable_prefix_caching = false;
  Harness h(o);
  h.Run("a", Prompt(30), 2);
  const Result r = h.Run("b", Prompt(30), 2);
  EXPECT_EQ(r.cached_tokens, 0);
  EXPECT_EQ(r.tokens, h.model->Reference(Prompt(30), 2));
}

TEST(Engine, ClearsThePrefixCache) {
  Harness h;
  h.Run("a", Prompt(30), 2);
  EXPECT_TRUE(h.engine->ResetPrefixCache().ok());
  EXPECT_EQ(h.Run("b", Prompt(30), 2).cached_tokens, 0);
}

TEST(Engine, StopsAtEosStopIdsAndLength) {
  const auto expected = FakeModel().Reference(Prompt(9), 12);
  const TokenId fourth = expected[3];
  const size_t first_at = std::find(expected.begin(), expected.end(), fourth) - expected.begin();
  {
    auto model = std::make_unique<FakeModel>();
    model->mutable_config().eos_ids = {fourth};
    Harness h(Harness::Options(), std::move(model));
    const Result eos = h.Run("eos", Prompt(9), 12);
    EXPECT_EQ(eos.finish, FinishReason::kStop);
    EXPECT_FALSE(eos.stop_token.has_value());
    EXPECT_EQ(eos.tokens.size(), first_at + 1);
    Request ignoring = h.Make("ignoring", Prompt(9), 12);
    ignoring.sampling.ignore_eos = true;
    EXPECT_EQ(h.Run(std::move(ignoring)).tokens, expected);
    Request later = h.Make("later", Prompt(9), 12);
    later.sampling.min_tokens = 8;
    const Result r = h.Run(std::move(later));
    EXPECT_GE(r.tokens.size(), 8u);
    EXPECT_EQ(std::count(r.tokens.begin(), r.tokens.begin() + 8, fourth), 0);
  }
  Harness h;
  Request stop = h.Make("stop", Prompt(9), 12);
  stop.sampling.stop_token_ids = {fourth};
  const Result r = h.Run(std::move(stop));
  EXPECT_EQ(r.finish, FinishReason::kStop);
  EXPECT_EQ(r.stop_token, fourth);
  EXPECT_EQ(r.tokens.size(), first_at + 1);
}

TEST(Engine, ReportsAFurtherEosIdAsStopToken) {
  const TokenId second = FakeModel().Reference(Prompt(9), 2)[1];
  auto model = std::make_unique<FakeModel>();
  model->mutable_config().eos_ids = {100, second};
  Harness h(Harness::Options(), std::move(model));
  const Result r = h.Run("a", Prompt(9), 12);
  EXPECT_EQ(r.finish, FinishReason::kStop);
  EXPECT_EQ(r.stop_token, second);
}

TEST(Engine, EndsAtTheModelsLength) {
  EngineOptions o = Harness::Options();
  o.max_model_len = 20;
  Harness h(o);
  const Result r = h.Run("a", Prompt(12), 100);
  EXPECT_EQ(r.finish, FinishReason::kLength);
  EXPECT_EQ(r.tokens.size(), 8u);
}

TEST(Engine, AbortsInEveryState) {
  EngineOptions o = Harness::Options();
  o.max_num_seqs = 1;
  Harness h(o);
  Gate gate;
  h.model->SetHook(gate.Hook());
  ASSERT_TRUE(h.Submit("running", Prompt(9), 200).ok());
  gate.Await();
  ASSERT_TRUE(h.Submit("waiting", Prompt(9), 5).ok());
  ASSERT_TRUE(h.Submit("kept", Prompt(9), 5).ok());
  h.engine->Abort("waiting");
  h.engine->Abort("running");
  h.engine->Abort("nobody");
  gate.Open();
  EXPECT_EQ(h.client.Wait("running").finish, FinishReason::kAbort);
  const Result waiting = h.client.Wait("waiting");
  EXPECT_EQ(waiting.finish, FinishReason::kAbort);
  EXPECT_THAT(waiting.tokens, IsEmpty());
  EXPECT_EQ(h.client.Wait("kept").tokens, h.model->Reference(Prompt(9), 5));
  EXPECT_TRUE(h.AllBlocksFree());
  h.engine->Abort("kept");                       // over already
  Request again = h.Make("kept", Prompt(4), 2);  // the id is free again
  again.on_output = h.client.For("again");
  ASSERT_TRUE(h.engine->Submit(std::move(again)).ok());
  EXPECT_EQ(h.client.Wait("again").finish, FinishReason::kLength);
}

TEST(Engine, RefusesWhatItCannotRun) {
  Harness h;
  const auto refused = [&](Request r, StatusCode code, const char* message) {
    const Status s = h.engine->Submit(std::move(r));
    EXPECT_EQ(s.code(), code) << s.ToString();
    EXPECT_THAT(s.message(), HasSubstr(message));
  };
  refused(h.Make("a", {}, 5), StatusCode::kInvalidArgument, "prompt is empty");
  refused(h.Make("a", Prompt(252), 5), StatusCode::kInvalidArgument, "maximum model length is 252");
  refused(h.Make("a", {1, 101}, 5), StatusCode::kInvalidArgument, "token id 101");
  refused(h.Make("a", {-1}, 5), StatusCode::kInvalidArgument, "token id -1");
  refused(h.Make("", {1}, 5), StatusCode::kInvalidArgument, "id");
  refused(h.Make("a", {1}, 0), StatusCode::kInvalidArgument, "max_tokens");
  Request bad = h.Make("a", {1}, 5);
  bad.kv_transfer_params = *json::Parse(R"({"remote_port":"x"})");
  refused(std::move(bad), StatusCode::kInvalidArgument, "kv_transfer_params.remote_port");
  EXPECT_EQ(h.Run("a", {1}, 1).finish, FinishReason::kLength);
}

TEST(Engine, BoundsItsQueueAndKnowsDuplicates) {
  EngineOptions o = Harness::Options();
  o.max_num_seqs = 1;
  o.max_waiting = 2;
  Harness h(o);
  Gate gate;
  h.model->SetHook(gate.Hook());
  ASSERT_TRUE(h.Submit("a", Prompt(5), 3).ok());
  gate.Await();
  ASSERT_TRUE(h.Submit("b", Prompt(5), 3).ok());
  EXPECT_EQ(h.Submit("b", Prompt(5), 3).code(), StatusCode::kAlreadyExists);
  ASSERT_TRUE(h.Submit("c", Prompt(5), 3).ok());
  EXPECT_EQ(h.Submit("d", Prompt(5), 3).code(), StatusCode::kResourceExhausted);
  gate.Open();
  h.client.Wait("c");
  EXPECT_EQ(h.Run("d", Prompt(5), 3).tokens.size(), 3u);
}

TEST(Engine, StopEndsEverythingAndRefusesMore) {
  Harness h;
  Gate gate;
  h.model->SetHook(gate.Hook());
  ASSERT_TRUE(h.Submit("a", Prompt(5), 200).ok());
  gate.Await();
  ASSERT_TRUE(h.Submit("b", Prompt(5), 3).ok());
  std::thread stopper([&] { h.engine->Stop(); });
  while (h.Submit("b", Prompt(5), 3).code() == StatusCode::kAlreadyExists)
    std::this_thread::yield();
  gate.Open();
  stopper.join();
  EXPECT_EQ(h.client.Wait("a").finish, FinishReason::kAbort);
  EXPECT_NE(h.client.Wait("b").finish, FinishReason::kNone);
  EXPECT_EQ(h.Submit("c", Prompt(5), 3).code(), StatusCode::kUnavailable);
  EXPECT_EQ(h.engine->ResetPrefixCache().code(), StatusCode::kUnavailable);
  EXPECT_FALSE(h.engine->healthy());
}

TEST(Engine, SurvivesAFailedStepAndForgetsItsBlocks) {
  Harness h;
  h.model->SetHook([](const StepBatch&) { return ResourceExhausted("no memory"); });
  const Result failed = h.Run("a", Prompt(30), 5);
  EXPECT_EQ(failed.finish, FinishReason::kError);
  EXPECT_EQ(failed.error.message(), "no memory");
  h.model->SetHook(nullptr);
  EXPECT_TRUE(h.engine->healthy());
  const Result r = h.Run("b", Prompt(30), 5);
  EXPECT_EQ(r.cached_tokens, 0);
  EXPECT_EQ(r.tokens, h.model->Reference(Prompt(30), 5));
}

TEST(Engine, TurnsUnhealthyWhenTheModelIsBroken) {
  Harness h;
  Gate gate;
  h.model->SetHook(gate.Hook());
  ASSERT_TRUE(h.Submit("a", Prompt(30), 5).ok());
  gate.Await();
  ASSERT_TRUE(h.Submit("b", Prompt(5), 5).ok());
  h.model->SetHook([](const StepBatch&) { return Internal("device lost"); });
  gate.Open();
  EXPECT_EQ(h.client.Wait("a").finish, FinishReason::kError);
  EXPECT_EQ(h.client.Wait("b").finish, FinishReason::kError);
  EXPECT_FALSE(h.engine->healthy());
  EXPECT_EQ(h.Submit("c", Prompt(5), 5).code(), StatusCode::kUnavailable);
}

TEST(Engine, DrawsTheSameForASeedInAnyCompany) {
  EngineOptions o = Harness::Options();
  Harness h(o);
  const auto seeded = [&](const std::string& id, std::optional<int64_t> seed) {
    Request r = h.Make(id, Prompt(9), 20);
    r.sampling.temperature = 1;
    r.sampling.seed = seed;
    return r;
  };
  const Result alone = h.Run(seeded("alone", 42));
  Gate gate;
  h.model->SetHook(gate.Hook());
  ASSERT_TRUE(h.Submit("other", Prompt(7, 5), 30).ok());
  gate.Await();
  for (int i = 0; i < 5; ++i)
    ASSERT_TRUE(h.engine->Submit(seeded("free" + std::to_string(i), {})).ok());
  ASSERT_TRUE(h.engine->Submit(seeded("company", 42)).ok());
  gate.Open();
  EXPECT_EQ(h.client.Wait("company").tokens, alone.tokens);
  EXPECT_NE(h.client.Wait("free0").tokens, h.client.Wait("free1").tokens);
  EXPECT_NE(h.Run(seeded("reseeded", 43)).tokens, alone.tokens);
}

double LogSoftmax(const std::vector<float>& row, TokenId id) {
  double total = 0;
  for (const float v : row) total += std::exp(static_cast<double>(v));
  return row[id] - std::log(total);
}

TEST(Engine, GivesLogprobsOfPromptAndOutput) {
  for (const int budget : {64, 7}) {
    EngineOptions o = Harness::Options();
    o.max_num_batched_tokens = budget;
    Harness h(o);
    h.Run("warm", Prompt(21), 1);  // cached blocks must not swallow positions
    Request request = h.Make("a", Prompt(21), 5);
    request.sampling.logprobs = 3;
    request.sampling.prompt_logprobs = 2;
    const Result r = h.Run(std::move(request));
    ASSERT_EQ(r.prompt_logprobs.size(), 20u);
    ASSERT_EQ(r.logprobs.size(), 5u);
    std::vector<TokenId> context;
    std::vector<TokenId> all = Prompt(21);
    all.insert(all.end(), r.tokens.begin(), r.tokens.end());
    for (size_t i = 0; i + 1 < all.size(); ++i) {
      context.push_back(all[i]);
      const PositionLogprobs& got = i < 20 ? r.prompt_logprobs[i] : r.logprobs[i - 20];
      const auto row = h.model->ReferenceRow(context);
      ASSERT_EQ(got.size(), i < 20 ? 3u : 4u);
      EXPECT_EQ(got[0].id, all[i + 1]);
      EXPECT_NEAR(got[0].logprob, LogSoftmax(row, all[i + 1]), 1e-4);
      EXPECT_EQ(got[1].rank, 1);
      EXPECT_NEAR(got[1].logprob, LogSoftmax(row, got[1].id), 1e-4);
      EXPECT_GE(got[1].logprob, got[2].logprob);
    }
  }
}

TEST(Engine, RunsTheMoreUrgentFirst) {
  EngineOptions o = Harness::Options();
  o.max_num_seqs = 1;
  o.scheduling_policy = "priority";
  Harness h(o);
  Gate gate;
  h.model->SetHook(gate.Hook());
  ASSERT_TRUE(h.Submit("running", Prompt(4), 2).ok());
  gate.Await();
  for (const int priority : {5, 1, 3}) {
    Request r = h.Make("p" + std::to_string(priority), Prompt(4, priority), 2);
    r.priority = priority;
    ASSERT_TRUE(h.engine->Submit(std::move(r)).ok());
  }
  gate.Open();
  h.client.Wait("p5");
  EXPECT_THAT(h.client.FinishOrder(), ElementsAre("running", "p1", "p3", "p5"));
}

TEST(Engine, ChecksItsOptions) {
  MetricsRegistry metrics;
  const auto refused = [&](auto change, const char* message) {
    EngineOptions o = Harness::Options();
    change(o);
    auto e = Engine::Create(std::make_unique<FakeModel>(), o, Logger(), metrics, SystemClock());
    ASSERT_FALSE(e.ok()) << message;
    EXPECT_THAT(e.status().message(), HasSubstr(message));
  };
  refused([](auto& o) { o.block_size = 0; }, "block_size");
  refused([](auto& o) { o.num_blocks = 1; }, "at least 2");
  refused(
      [](auto& o) {
        o.num_blocks = 0;
        o.kv_cache_bytes = 10;
      },
      "kv_cache_bytes");
  refused([](auto& o) { o.max_model_len = 257; }, "above the model's 256");
  refused([](auto& o) { o.max_model_len = 253; }, "does not fit the KV cache of 252 tokens");
  refused([](auto& o) { o.scheduling_policy = "lifo"; }, "'lifo'");
  refused([](auto& o) { o.enable_chunked_prefill = false; }, "without chunked prefill");
  refused([](auto& o) { o.hash_algorithm = "md5"; }, "md5");
  refused([](auto& o) { o.max_num_seqs = 0; }, "max_num_seqs");
  refused([](auto& o) { o.kv_transfer.connector = "Telepathy"; }, "known: NixlConnector");
}

TEST(Engine, IgnoresTransferParametersWithoutAConnector) {
  Harness h;
  Request r = h.Make("a", Prompt(9), 1);
  r.kv_transfer_params = *json::Parse(R"({"do_remote_decode":true})");
  const Result got = h.Run(std::move(r));
  EXPECT_FALSE(got.kv_transfer_params.has_value());
  EXPECT_TRUE(h.AllBlocksFree());
}

// For the thread sanitizer as much as for the result.
TEST(Engine, ServesManyThreadsAtOnce) {
  EngineOptions o = Harness::Options(40);
  o.max_num_seqs = 6;
  Harness h(o);
  std::atomic<bool> over{false};
  std::thread watcher([&] {
    while (!over) {
      const EngineStats s = h.engine->Stats();
      ASSERT_LE(s.free_blocks, s.total_blocks);
      ASSERT_LE(s.running, 6);
      ASSERT_TRUE(h.engine->healthy());
      std::this_thread::yield();
    }
  });
  std::vector<std::thread> clients;
  for (int t = 0; t < 4; ++t) {
    clients.emplace_back([&, t] {
      for (int i = 0; i < 15; ++i) {
        const std::string id = std::to_string(t) + "-" + std::to_string(i);
        ASSERT_TRUE(h.Submit(id, Prompt(5 + i, t), 10).ok());
        if (i % 3 == 0) h.engine->Abort(id);
        const Result r = h.client.Wait(id);
        const auto expected = h.model->Reference(Prompt(5 + i, t), 10);
        ASSERT_TRUE(std::equal(r.tokens.begin(), r.tokens.end(), expected.begin()));
        if (r.finish != FinishReason::kAbort) ASSERT_EQ(r.tokens.size(), 10u);
      }
    });
  }
  for (auto& c : clients) c.join();
  over = true;
  watcher.join();
  EXPECT_TRUE(h.AllBlocksFree());
}

}  // namespace
}  // namespace llmd::engine
