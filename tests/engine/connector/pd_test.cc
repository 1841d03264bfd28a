#include "llmd/engine/connector/pd.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>

#include "engine/harness.h"
#include "engine_impl.h"

namespace llmd::engine {
namespace {

using testing::HasSubstr;

EngineOptions PdOptions(const std::string& transport, int usable_blocks = 63) {
  EngineOptions o = Harness::Options(usable_blocks);
  o.kv_transfer.connector = "NixlConnector";
  o.kv_transfer.transport = transport;
  return o;
}

// A prefill and a decode engine in one process, over the real agent.
struct Pair {
  explicit Pair(const std::string& transport = "auto", EngineOptions decode_options = {},
                const Clock& clock = SystemClock(), int prefill_blocks = 63,
                std::unique_ptr<FakeModel> decode_model = std::make_unique<FakeModel>())
      : prefill(PdOptions(transport, prefill_blocks), std::make_unique<FakeModel>(), clock),
        decode(decode_options.num_blocks > 0 ? decode_options : PdOptions(transport),
               std::move(decode_model)) {}

  Request PrefillLeg(const std::string& id, std::vector<TokenId> prompt, int max_tokens = 1) {
    Request r = prefill.Make(id, std::move(prompt), max_tokens);
    r.kv_transfer_params = *json::Parse(
        R"({"do_remote_decode":true,"do_remote_prefill":false,"remote_engine_id":null,"remote_block_ids":null,)"
        R"("remote_host":null,"remote_port":null})");
    return r;
  }
  json::Value Prefill(const std::string& id, const std::vector<TokenId>& prompt) {
    Result r = prefill.Run(PrefillLeg(id, prompt));
    EXPECT_EQ(r.finish, FinishReason::kLength);
    EXPECT_TRUE(r.kv_transfer_params.has_value());
    return r.kv_transfer_params.value_or(json::Value());
  }
  Request DecodeLeg(const std::string& id, std::vector<TokenId> prompt, json::Value params,
                    int max_tokens = 10) {
    Request r = decode.Make(id, std::move(prompt), max_tokens);
    r.kv_transfer_params = std::move(params);
    return r;
  }
  Result Decode(const std::string& id, const std::vector<TokenId>& prompt, json::Value params) {
    const Result r = decode.Run(DecodeLeg(id, prompt, std::move(params)));
    EXPECT_EQ(r.tokens, decode.model->Reference(prompt, 10)) << id;
    return r;
  }
  // What the prefill engine says of Prompt(22), but in the name of a peer at `port`.
  json::Value Claimed(int port) {
    json::Value params = Prefill("claimed", Prompt(22));
    params.Set("remote_engine_id", "silent");
    params.Set("remote_port", port);
    return params;
  }
  bool PrefillReleased() {
    return prefill.Eventually([](const EngineStats& s) {
      return s.pinned_blocks == 0 && s.free_blocks == s.total_blocks;
    });
  }
  EngineImpl& PrefillImpl() { return static_cast<EngineImpl&>(*prefill.engine); }

  Harness prefill, decode;
};

class PdLane : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Lanes, PdLane, testing::Values("memfd", "tcp"),
                         [](auto& info) { return info.param; });

TEST_P(PdLane, ReadsTheFullBlocksAndReleasesThem) {
  Pair pair(GetParam());
  const auto prompt = Prompt(22);
  const json::Value params = pair.Prefill("a", prompt);
  EXPECT_TRUE(params["do_remote_prefill"].AsBool());
  EXPECT_EQ(params["remote_num_tokens"].AsInt(), 22);
  EXPECT_EQ(params["remote_block_ids"].AsArray().at(0).AsArray().size(), 5u);
  EngineStats p = pair.prefill.engine->Stats();
  EXPECT_EQ(p.pinned_blocks, 5);
  EXPECT_EQ(p.free_blocks, p.total_blocks - 5);

  const Result r = pair.Decode("a", prompt, params);
  EXPECT_EQ(r.remote_tokens, 20);
  EXPECT_EQ(r.cached_tokens, 0);
  const EngineStats d = pair.decode.engine->Stats();
  EXPECT_EQ(d.prompt_tokens_remote, 20u);
  EXPECT_EQ(d.prompt_tokens_local_compute, 2u);
  EXPECT_EQ(d.kv_load_failures, 0u);
  EXPECT_THAT(pair.decode.metrics.Expose(), HasSubstr("llmd_kv_transfer_blocks_total{lane=\"" +
                                                      std::string(GetParam()) + "\"} 5.0"));
  EXPECT_TRUE(pair.PrefillReleased());
  EXPECT_TRUE(pair.decode.AllBlocksFree());
}

TEST_P(PdLane, ServesManyAtOnce) {
  Pair pair(GetParam());
  std::vector<std::thread> clients;
  for (int t = 0; t < 8; ++t) {
    clients.emplace_back([&, t] {
      for (int i = 0; i < 4; ++i) {
        const std::string id = std::to_string(t) + "-" + std::to_string(i);
        const auto prompt = Prompt(5 + 3 * i + t, 10 * t + i);
        pair.Decode(id, prompt, pair.Prefill(id, prompt));
      }
    });
  }
  for (auto& c : clients) c.join();
  EXPECT_TRUE(pair.PrefillReleased());
  EXPECT_TRUE(pair.decode.AllBlocksFree());
  const EngineStats d = pair.decode.engine->Stats();
  EXPECT_EQ(d.kv_load_failures, 0u);
  EXPECT_EQ(d.prompt_tokens,
            d.prompt_tokens_local_cache + d.prompt_tokens_local_compute + d.prompt_tokens_remote);
}

TEST_P(PdLane, RecomputesFromAnOverwrittenBlock) {
  Pair pair(GetParam());
  const auto prompt = Prompt(22);
  const json::Value params = pair.Prefill("a", prompt);
  const int32_t victim =
      static_cast<int32_t>(params["remote_block_ids"].AsArray()[0].AsArray()[2].AsInt());
  kv::Region& region = pair.PrefillImpl().region();
  region.Bump(victim);
  std::memset(region.blocks() + victim * region.block_stride(), 0x55, region.block_bytes());
  const Result r = pair.Decode("a", prompt, params);
  EXPECT_EQ(r.remote_tokens, 8);
  EXPECT_EQ(pair.decode.engine->Stats().kv_load_failures, 1u);
  EXPECT_TRUE(pair.PrefillReleased());
  // What was recomputed is what later requests find.
  const Result again = pair.decode.Run("b", prompt, 10);
  EXPECT_EQ(again.cached_tokens, 20);
  EXPECT_EQ(again.tokens, r.tokens);
}

TEST(PdConnector, KnowsTheEdgesOfBlocks) {
  struct Case {
    int prompt, remote;
  };
  for (const Case c : {Case{3, 0}, Case{4, 4}, Case{5, 4}, Case{8, 8}, Case{9, 8}}) {
    Pair pair;
    const auto prompt = Prompt(c.prompt);
    const Result r = pair.Decode("a", prompt, pair.Prefill("a", prompt));
    EXPECT_EQ(r.remote_tokens, c.remote) << c.prompt;
    EXPECT_TRUE(pair.PrefillReleased());
    EXPECT_EQ(pair.decode.engine->Stats().kv_load_failures, 0u) << c.prompt;
  }
}

TEST(PdConnector, ReadsOnlyTheTailBehindALocalPrefix) {
  Pair pair;
  const auto prompt = Prompt(22);
  pair.decode.Run("warm", std::vector<TokenId>(prompt.begin(), prompt.begin() + 9), 1);
  const Result r = pair.Decode("a", prompt, pair.Prefill("a", prompt));
  EXPECT_EQ(r.cached_tokens, 8);
  EXPECT_EQ(r.remote_tokens, 12);
  EXPECT_TRUE(pair.PrefillReleased());
}

TEST(PdConnector, OnlyTellsTheLenderWhenAllIsCached) {
  Pair pair;
  const auto prompt = Prompt(22);
  pair.decode.Run("warm", prompt, 1);
  const json::Value params = pair.Prefill("a", prompt);
  const Result r = pair.Decode("a", prompt, params);
  EXPECT_EQ(r.cached_tokens, 20);
  EXPECT_EQ(r.remote_tokens, 0);
  EXPECT_TRUE(pair.PrefillReleased());
  EXPECT_EQ(pair.decode.engine->Stats().kv_load_failures, 0u);
}

TEST(PdConnector, ComputesEverythingForPromptLogprobs) {
  Pair pair;
  const auto prompt = Prompt(22);
  Request r = pair.DecodeLeg("a", prompt, pair.Prefill("a", prompt));
  r.sampling.prompt_logprobs = 0;
  const Result got = pair.decode.Run(std::move(r));
  EXPECT_EQ(got.prompt_logprobs.size(), 21u);
  EXPECT_EQ(got.remote_tokens, 0);
  EXPECT_TRUE(pair.PrefillReleased());
}

TEST(PdConnector, FreesPinnedBlocksWhenTheLeaseEndsAndNotBefore) {
  FakeClock clock;
  Pair pair("auto", {}, clock);
  const auto prompt = Prompt(22);
  const json::Value params = pair.Prefill("a", prompt);
  kv::Agent& agent = pair.PrefillImpl().connector()->agent();
  clock.Advance(std::chrono::seconds(29));
  agent.ExpireLeases();
  EXPECT_EQ(agent.leases(), 1u);
  EXPECT_EQ(pair.prefill.engine->ResetPrefixCache().code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(pair.prefill.engine->Stats().pinned_blocks, 5);
  clock.Advance(std::chrono::seconds(2));
  agent.ExpireLeases();
  EXPECT_TRUE(pair.PrefillReleased());
  // The reader comes too late: it is told, and computes.
  const Result r = pair.Decode("a", prompt, params);
  EXPECT_EQ(r.remote_tokens, 0);
  EXPECT_EQ(pair.decode.engine->Stats().kv_load_failures, 1u);
}

TEST(PdConnector, NeverGivesPinnedBlocksAway) {
  Pair pair("auto", {}, SystemClock(), /*prefill_blocks=*/12);
  const auto prompt = Prompt(22);
  const json::Value params = pair.Prefill("a", prompt);
  for (int i = 0; i < 20; ++i) {
    pair.prefill.Run("other" + std::to_string(i), Prompt(20, i + 1), 8);  // the seven other blocks
  }
  EXPECT_EQ(pair.prefill.engine->Stats().pinned_blocks, 5);
  EXPECT_EQ(pair.Decode("a", prompt, params).remote_tokens, 20);
  EXPECT_EQ(pair.decode.engine->Stats().kv_load_failures, 0u);
  EXPECT_TRUE(pair.PrefillReleased());
}

TEST(PdConnector, ComputesWhenThePeerIsGone) {
  auto pair = std::make_unique<Pair>();
  const auto prompt = Prompt(22);
  const json::Value params = pair->Prefill("a", prompt);
  pair->prefill.engine->Stop();
  EXPECT_EQ(pair->Decode("a", prompt, params).remote_tokens, 0);
  EXPECT_EQ(pair->decode.engine->Stats().kv_load_failures, 1u);
  EXPECT_TRUE(pair->decode.AllBlocksFree());
}

TEST(PdConnector, ComputesWhenTheEnginesDoNotFit) {
  EngineOptions other = PdOptions("auto");
  other.hash_algorithm = "xxhash_cbor";
  Pair pair("auto", other);
  const auto prompt = Prompt(22);
  const Result r = pair.Decode("a", prompt, pair.Prefill("a", prompt));
  EXPECT_EQ(r.remote_tokens, 0);
  EXPECT_EQ(pair.decode.engine->Stats().kv_refused_model, 1u);
  EXPECT_EQ(pair.decode.engine->Stats().kv_load_failures, 0u);
  EXPECT_TRUE(pair.PrefillReleased());
}

TEST_P(PdLane, TakesNoBlocksOfAnotherPrompt) {
  Pair pair(GetParam());
  const auto mine = Prompt(22, 1);
  const Result r = pair.Decode("a", mine, pair.Prefill("a", Prompt(22, 2)));
  EXPECT_EQ(r.remote_tokens, 0);
  EXPECT_EQ(pair.decode.engine->Stats().kv_refused_prompt, 1u);
  EXPECT_EQ(pair.decode.engine->Stats().kv_load_failures, 0u);
  EXPECT_TRUE(pair.PrefillReleased());
  // Nor does the prefix cache hold any.
  const Result again = pair.decode.Run("b", mine, 10);
  EXPECT_EQ(again.cached_tokens, 20);
  EXPECT_EQ(again.tokens, r.tokens);
}

TEST(PdConnector, TakesNoBlocksOfALongerOrShorterPrompt) {
  // As when both sides truncate differently, or their templates render another date.
  for (const int length : {18, 21, 23, 30}) {
    Pair pair;
    EXPECT_EQ(pair.Decode("a", Prompt(22), pair.Prefill("a", Prompt(length))).remote_tokens, 0);
    EXPECT_EQ(pair.decode.engine->Stats().kv_refused_prompt, 1u);
    EXPECT_TRUE(pair.PrefillReleased());
  }
}

TEST(PdConnector, TakesNothingThatIsNotProved) {
  for (const char* proof : {"llmd_prompt_hash", "llmd_fingerprint"}) {
    Pair pair;
    json::Value params = pair.Prefill("a", Prompt(22));
    EXPECT_EQ(params[proof].AsString().size(), 32u);
    EXPECT_TRUE(params.Erase(proof));
    EXPECT_EQ(pair.Decode("a", Prompt(22), params).remote_tokens, 0);
    EXPECT_EQ(pair.decode.engine->Stats().kv_refused_unproved, 1u);
    EXPECT_TRUE(pair.PrefillReleased());
  }
}

std::unique_ptr<FakeModel> ModelOf(const std::string& fingerprint) {
  auto model = std::make_unique<FakeModel>();
  model->mutable_config().fingerprint = fingerprint;
  return model;
}

TEST_P(PdLane, TakesNothingFromOtherWeights) {
  Pair pair(GetParam(), {}, SystemClock(), 63, ModelOf("other"));
  EXPECT_EQ(pair.Decode("a", Prompt(22), pair.Prefill("a", Prompt(22))).remote_tokens, 0);
  EXPECT_EQ(pair.decode.engine->Stats().kv_refused_model, 1u);
  EXPECT_EQ(pair.decode.engine->Stats().kv_load_failures, 0u);
  EXPECT_TRUE(pair.PrefillReleased());
}

TEST_P(PdLane, TheHandshakeComparesWeightsToo) {
  Pair pair(GetParam(), {}, SystemClock(), 63, ModelOf("other"));
  json::Value params = pair.Prefill("a", Prompt(22));
  // A lender that claims to be of the reader's kind.
  Request own = pair.decode.Make("own", Prompt(22, 5), 1);
  own.kv_transfer_params = *json::Parse(R"({"do_remote_decode":true})");
  const Result said = pair.decode.Run(std::move(own));
  params.Set("llmd_fingerprint", (*said.kv_transfer_params)["llmd_fingerprint"]);
  EXPECT_EQ(pair.Decode("a", Prompt(22), params).remote_tokens, 0);
  EXPECT_EQ(pair.decode.engine->Stats().kv_load_failures, 1u);
  EXPECT_TRUE(pair.PrefillReleased());
}

TEST(PdConnector, LendsAndTakesNothingForOneOfSeveral) {
  Pair pair;
  Request lending = pair.PrefillLeg("a", Prompt(22));
  lending.transferable = false;
  EXPECT_FALSE(pair.prefill.Run(std::move(lending)).kv_transfer_params.has_value());
  EXPECT_TRUE(pair.PrefillReleased());
  Request taking = pair.DecodeLeg("b", Prompt(22), pair.Prefill("b", Prompt(22)));
  taking.transferable = false;
  const Result r = pair.decode.Run(std::move(taking));
  EXPECT_EQ(r.tokens, pair.decode.model->Reference(Prompt(22), 10));
  EXPECT_EQ(r.remote_tokens, 0);
  EXPECT_EQ(pair.decode.engine->Stats().kv_refused_several, 1u);
  EXPECT_TRUE(pair.PrefillReleased());
}

TEST(PdConnector, KeepsTheLeaseWhenTheIdIsInUse) {
  Pair pair;
  Gate gate;
  pair.decode.model->SetHook(gate.Hook());
  ASSERT_TRUE(pair.decode.Submit("a", Prompt(5, 9), 3).ok());
  gate.Await();
  const json::Value params = pair.Prefill("p", Prompt(22));
  EXPECT_EQ(pair.decode.engine->Submit(pair.DecodeLeg("a", Prompt(22), params)).code(),
            StatusCode::kAlreadyExists);
  gate.Open();
  EXPECT_EQ(pair.Decode("b", Prompt(22), params).remote_tokens, 20);
}

TEST(PdConnector, PinsNothingForAnAbortedPrefill) {
  Pair pair;
  Gate gate;
  pair.prefill.model->SetHook(gate.Hook());
  ASSERT_TRUE(pair.prefill.engine->Submit(pair.PrefillLeg("a", Prompt(22), 100)).ok());
  gate.Await();
  pair.prefill.engine->Abort("a");
  gate.Open();
  const Result r = pair.prefill.client.Wait("a");
  EXPECT_EQ(r.finish, FinishReason::kAbort);
  EXPECT_FALSE(r.kv_transfer_params.has_value());
  EXPECT_TRUE(pair.PrefillReleased());
}

TEST(PdConnector, LendsTheSameRequestIdTwice) {
  Pair pair;
  const auto prompt = Prompt(22);
  const json::Value first = pair.Prefill("a", prompt);
  Request again = pair.PrefillLeg("a", prompt);
  again.on_output = pair.prefill.client.For("again");
  ASSERT_TRUE(pair.prefill.engine->Submit(std::move(again)).ok());
  const Result second = pair.prefill.client.Wait("again");
  ASSERT_TRUE(second.kv_transfer_params.has_value());
  EXPECT_NE(first["remote_request_id"], (*second.kv_transfer_params)["remote_request_id"]);
  EXPECT_EQ(second.cached_tokens, 20);
  EXPECT_EQ((*second.kv_transfer_params)["remote_prefill_cached_tokens"].AsInt(), 20);
  pair.Decode("d1", prompt, first);
  EXPECT_GT(pair.prefill.engine->Stats().pinned_blocks, 0);
  pair.Decode("d2", prompt, *second.kv_transfer_params);
  EXPECT_TRUE(pair.PrefillReleased());
}

TEST(PdConnector, TellsTheLenderOfADecodeThatNeverRan) {
  EngineOptions one = PdOptions("auto");
  one.max_num_seqs = 1;
  Pair pair("auto", one);
  const auto prompt = Prompt(22);
  // Refused by Submit.
  EXPECT_FALSE(
      pair.decode.engine->Submit(pair.DecodeLeg("a", prompt, pair.Prefill("a", prompt), 0)).ok());
  EXPECT_TRUE(pair.PrefillReleased());
  // Refused before Submit.
  pair.decode.engine->DiscardTransfer(pair.Prefill("b", prompt));
  EXPECT_TRUE(pair.PrefillReleased());
  // Aborted while it waited for its turn.
  Gate gate;
  pair.decode.model->SetHook(gate.Hook());
  ASSERT_TRUE(pair.decode.Submit("running", Prompt(4), 3).ok());
  gate.Await();
  ASSERT_TRUE(
      pair.decode.engine->Submit(pair.DecodeLeg("c", prompt, pair.Prefill("c", prompt))).ok());
  pair.decode.engine->Abort("c");
  gate.Open();
  EXPECT_EQ(pair.decode.client.Wait("c").finish, FinishReason::kAbort);
  EXPECT_TRUE(pair.PrefillReleased());
}

// A peer that accepts and says nothing.
class SilentPeer {
 public:
  SilentPeer() : fd_(socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(bind(fd_, reinterpret_cast<sockaddr*>(&at), sizeof at), 0);
    EXPECT_EQ(listen(fd_, 4), 0);
    socklen_t size = sizeof at;
    getsockname(fd_, reinterpret_cast<sockaddr*>(&at), &size);
    port_ = ntohs(at.sin_port);
  }
  ~SilentPeer() { close(fd_); }
  int port() const { return port_; }
  int Accept() { return accept(fd_, nullptr, nullptr); }

 private:
  int fd_;
  int port_ = 0;
};

TEST(PdConnector, KeepsTheBlocksOfAnAbortedPullUntilItEnds) {
  Pair pair("tcp");
  SilentPeer peer;
  const json::Value params = pair.Claimed(peer.port());
  ASSERT_TRUE(pair.decode.engine->Submit(pair.DecodeLeg("a", Prompt(22), params)).ok());
  const int connection = peer.Accept();
  ASSERT_GE(connection, 0);
  ASSERT_TRUE(
      pair.decode.Eventually([](const EngineStats& s) { return s.waiting_for_remote == 1; }));
  pair.decode.engine->Abort("a");
  EXPECT_EQ(pair.decode.client.Wait("a").finish, FinishReason::kAbort);
  EngineStats s = pair.decode.engine->Stats();
  EXPECT_EQ(s.waiting_for_remote, 0);
  EXPECT_EQ(s.free_blocks, s.total_blocks - 6);
  // Others go on meanwhile, and cannot get those blocks.
  EXPECT_EQ(pair.decode.Run("b", Prompt(30, 3), 10).tokens,
            pair.decode.model->Reference(Prompt(30, 3), 10));
  close(connection);
  EXPECT_TRUE(pair.decode.AllBlocksFree());
}

TEST(PdConnector, StopsWhileAPullIsUnderWay) {
  Pair pair("tcp");
  SilentPeer peer;
  const json::Value params = pair.Claimed(peer.port());
  ASSERT_TRUE(pair.decode.engine->Submit(pair.DecodeLeg("a", Prompt(22), params)).ok());
  const int connection = peer.Accept();
  pair.decode.engine->Stop();
  EXPECT_EQ(pair.decode.client.Wait("a").finish, FinishReason::kAbort);
  close(connection);
}

}  // namespace
}  // namespace llmd::engine
