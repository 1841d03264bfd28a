// Precise prefix routing: keys, index, score, guesses, and the peer that blocks are fetched from.
#include "config/graph.h"
#include "llmd/sched/config_loader.h"
#include "pass/scheduling_pass.h"
#include "plugins/producer/precise_producer.h"
#include "sched/director_support.h"
#include "trace/record.h"

namespace llmd::sched {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kPrecise[] = "precise-prefix-cache-producer";

// A graph whose producers run on chosen requests, with its index at hand.
class Precise : public ::testing::Test {
 protected:
  void Load(const std::string& parameters = "{}",
            const std::string& type = "precise-prefix-cache-producer") {
    const auto graph = LoadGraph(
        Config({"{type: " + type + ", parameters: " + parameters + "}",
                "{type: prefix-cache-scorer, parameters: {prefixMatchInfoProducerName: " + type +
                    "}}"}),
        {.clock = &clock_, .metrics = &metrics_});
    ASSERT_TRUE(graph.ok()) << graph.status().ToString();
    graph_ = *graph;
    for (const auto& plugin : graph_->plugins) {
      if (auto* p = dynamic_cast<PreciseProducer*>(plugin.get())) producer_ = p;
    }
    ASSERT_NE(producer_, nullptr);
    auto set = std::make_shared<EndpointSet>();
    for (int i = 0; i < 3; ++i) {
      EndpointInfo info;
      info.name = "e" + std::to_string(i);
      info.address = "10.0.0." + std::to_string(i);
      info.port = 8000;
      set->Add(std::make_shared<const EndpointInfo>(info), static_cast<uint32_t>(i));
      snapshot_.Add(std::make_shared<const EndpointMetrics>());
    }
    snapshot_.set = set;
  }
  const Attribute& Run(const std::string& body, const std::string& path = "/v1/completions") {
    body_ = body;
    request_.Reset(graph_->attribute_count);
    request_.path = path;
    request_.body = body_;
    EXPECT_TRUE(graph_->FindParser(path)->Parse(request_).ok());
    request_.target_model = request_.model;
    DecisionRecord record;
    request_.AllEligible(snapshot_.size());
    SchedulingPass(*graph_, request_, snapshot_, record).Produce();
    const Attribute* out = request_.Get(graph_->prefix_match);
    EXPECT_NE(out, nullptr);
    static const Attribute kNone;
    return out ? *out : kNone;
  }
  static std::string Ids(int from, int to, const std::string& rest = "") {
    std::string out = R"({"model":"test-model","prompt":[)";
    for (int i = from; i <= to; ++i) out += (i == from ? "" : ",") + std::to_string(i);
    return out + "]" + rest + "}";
  }
  void Hold(int endpoint, const std::string& tier, std::vector<uint64_t> keys) {
    kv::Index& index = producer_->index();
    const auto id = index.AddEndpoint(snapshot_.set->host_ports[static_cast<size_t>(endpoint)]);
    const auto number = index.AddTier(tier);
    ASSERT_TRUE(id.ok() && number.ok());
    ASSERT_TRUE(index.Add({.ns = producer_->index_namespace(), .keys = keys}, {*id, *number}).ok());
  }
  void Choose(uint32_t endpoint) {
    ScheduleOutcome outcome;
    outcome.primary = {endpoint};
    HeaderList headers;
    producer_->PreRequest(request_, snapshot_, outcome, headers);
  }
  FakeClock clock_;
  MetricsRegistry metrics_;
  std::shared_ptr<Graph> graph_;
  PreciseProducer* producer_ = nullptr;
  Snapshot snapshot_;
  RequestContext request_;
  std::string body_;
};

// The published vectors: cbor-fnv and xxh64, blocks of 16 tokens.
constexpr uint64_t kV3[] = {9540012594951042066u, 16921089685996993662u};
constexpr uint64_t kV4[] = {9813823192409008620u, 682745025325898328u};
constexpr uint64_t kV8[] = {13553460584553255540u, 9887990258693334188u};

TEST_F(Precise, KeysAreThePublishedOnes) {
  Load();
  EXPECT_THAT(Run(Ids(1, 32)).hashes, ElementsAre(kV3[0], kV3[1]));
  Load("{tokenProcessorConfig: {hashSeed: test-seed}}");
  EXPECT_THAT(Run(Ids(1, 32)).hashes, ElementsAre(kV4[0], kV4[1]));
  Load("{tokenProcessorConfig: {hashAlgorithm: xxh64}}");
  EXPECT_THAT(Run(Ids(1, 32)).hashes, ElementsAre(kV8[0], kV8[1]));
}

TEST_F(Precise, OnlyFullBlocksCount) {
  Load();
  const Attribute& out = Run(Ids(1, 31));
  EXPECT_THAT(out.hashes, ElementsAre(kV3[0]));
  EXPECT_EQ(out.total, 1);
  EXPECT_EQ(out.block_size, 16);
  EXPECT_EQ(Run(Ids(1, 15)).total, 0);
}

TEST_F(Precise, SaltAndMediaNameTheBlocksTheyTouch) {
  Load("{tokenProcessorConfig: {hashSeed: test-seed}}");
  // V5: block 0 with extra [mm-hash-a].
  const std::string features =
      R"(,"features":{"mm_hashes":{"image":["mm-hash-a"]},"mm_placeholders":{"image":[{"offset":3,"length":2}]}})";
  std::string body = Ids(1, 32, features);
  body.replace(body.find("\"prompt\""), 8, "\"token_ids\"");
  EXPECT_THAT(Run(body, "/inference/v1/generate").hashes,
              ElementsAre(6661987469926989014u, 4015567736758660505u));
  // The salt is one more string of the first block.
  Load("{tokenProcessorConfig: {hashSeed: test-seed}}");
  EXPECT_THAT(Run(Ids(1, 32, R"(,"cache_salt":"mm-hash-a")")).hashes,
              ElementsAre(6661987469926989014u, 4015567736758660505u));
}

TEST_F(Precise, MatchesAreWeightedAndNotCutToIntegers) {
  Load();
  Hold(0, "gpu", {kV3[0], kV3[1]});
  Hold(1, "cpu", {kV3[0]});
  const Attribute& out = Run(Ids(1, 32));
  EXPECT_THAT(out.per_endpoint, ElementsAre(2, 0.8, 0));
  EXPECT_THAT(out.second, ElementsAre(2, 1, 0));
  EXPECT_THAT(out.offloaded, ElementsAre(0, 1, 0));
}

TEST_F(Precise, WeightsAreThoseOfTheConfiguration) {
  Load(
      "{indexerConfig: {kvCacheBackendConfigs: [{name: gpu, weight: 0.5}, {name: disk, weight: "
      "0.25}]}}");
  Hold(0, "gpu", {kV3[0], kV3[1]});
  Hold(1, "disk", {kV3[0], kV3[1]});
  Hold(2, "cpu", {kV3[0], kV3[1]});  // not named: 1
  EXPECT_THAT(Run(Ids(1, 32)).per_endpoint, ElementsAre(1, 0.5, 2));
}

TEST_F(Precise, PromptsOfOneRequestAddUp) {
  Load();
  const std::string one = Ids(1, 32);
  const std::string ids = one.substr(one.find('['), one.rfind(']') - one.find('[') + 1);
  Hold(0, "gpu", {kV3[0]});
  const Attribute& out = Run(R"({"model":"test-model","prompt":[)" + ids + "," + ids + "]}");
  EXPECT_EQ(out.total, 4);
  EXPECT_THAT(out.per_endpoint, ElementsAre(2, 0, 0));
}

TEST_F(Precise, AGuessHoldsForItsTimeOnly) {
  Load("{speculativeIndexing: true, speculativeTTL: 3s}");
  Run(Ids(1, 32));
  Choose(1);
  EXPECT_THAT(Run(Ids(1, 32)).per_endpoint, ElementsAre(0, 2, 0));
  clock_.Advance(std::chrono::milliseconds(2999));
  EXPECT_THAT(Run(Ids(1, 16)).per_endpoint, ElementsAre(0, 1, 0));
  clock_.Advance(std::chrono::milliseconds(1));
  EXPECT_THAT(Run(Ids(1, 32)).per_endpoint, ElementsAre(0, 0, 0));
  EXPECT_EQ(producer_->index().Stats().blocks, 0u);
}

TEST_F(Precise, ANewUseRenewsTheGuess) {
  Load("{speculativeIndexing: true, speculativeTTL: 2s}");
  Run(Ids(1, 48));
  Choose(1);
  clock_.Advance(std::chrono::milliseconds(1900));
  Run(Ids(1, 32));  // its front
  Choose(1);
  clock_.Advance(std::chrono::milliseconds(1999));
  EXPECT_EQ(Run(Ids(1, 48)).per_endpoint[1], 2);
  EXPECT_EQ(Run(Ids(1, 48)).per_endpoint[0], 0);
  clock_.Advance(std::chrono::milliseconds(1));
  EXPECT_EQ(Run(Ids(1, 48)).per_endpoint[1], 0);
}

TEST_F(Precise, AnEventOutlivesTheGuessOfTheSameBlock) {
  Load("{speculativeIndexing: true}");
  Run(Ids(1, 32));
  Choose(0);
  Hold(0, "gpu", {kV3[0]});
  clock_.Advance(std::chrono::seconds(2));
  EXPECT_THAT(Run(Ids(1, 32)).per_endpoint, ElementsAre(1, 0, 0));
}

TEST_F(Precise, WithoutSpeculationNothingIsGuessed) {
  Load();
  Run(Ids(1, 32));
  Choose(1);
  EXPECT_EQ(producer_->index().Stats().blocks, 0u);
}

TEST_F(Precise, AnEndpointThatLeavesTakesItsBlocksAlong) {
  Load();
  Hold(0, "gpu", {kV3[0]});
  Hold(1, "gpu", {kV3[0]});
  producer_->OnEndpointGone(snapshot_.info(0), 0);
  EXPECT_THAT(Run(Ids(1, 32)).per_endpoint, ElementsAre(0, 1, 0));
}

TEST_F(Precise, LookUpsAreCountedWhereAskedFor) {
  Load("{indexerConfig: {kvBlockIndexConfig: {enableMetrics: true}}}");
  Run(Ids(1, 32));
  Hold(0, "gpu", {kV3[0]});
  Run(Ids(1, 32));
  const std::string text = metrics_.Expose();
  EXPECT_THAT(text, ::testing::ContainsRegex("index_lookup_requests_total[^\n]* 2.0"));
  EXPECT_THAT(text, ::testing::ContainsRegex("index_lookup_hits_total[^\n]* 1.0"));
  EXPECT_THAT(text, ::testing::ContainsRegex("index_max_pod_hit_count_total[^\n]* 1.0"));
}

TEST_F(Precise, AdmissionsAndEvictionsAreCountedWhereAskedFor) {
  Load("{speculativeIndexing: true, indexerConfig: {kvBlockIndexConfig: {enableMetrics: true}}}");
  Run(Ids(1, 32));
  Choose(0);
  EXPECT_THAT(metrics_.Expose(), ::testing::ContainsRegex("index_admissions_total[^\n]* 2.0"));
  EXPECT_THAT(metrics_.Expose(), ::testing::ContainsRegex("index_evictions_total[^\n]* 0.0"));
  clock_.Advance(std::chrono::seconds(2));
  Run(Ids(1, 32));
  EXPECT_THAT(metrics_.Expose(), ::testing::ContainsRegex("index_evictions_total[^\n]* 2.0"));
}

TEST(PreciseParameters, WhatIsNotThereYetIsSaid) {
  const std::pair<const char*, const char*> cases[] = {
      {"{kvEventsConfig: {zmqEndpoint: 'tcp://*:5557'}}", "reading KV events"},
      {"{kvEventsConfig: {discoverPods: true}}", "discoverPods"},
      {"{kvEventsConfig: {podDiscoveryConfig: {socketPort: 5557}}}", "podDiscoveryConfig"},
      {"{kvEventsConfig: {engineType: tgi}}", "engineType"},
      {"{indexerConfig: {kvBlockIndexConfig: {redisConfig: {address: x}}}}", "redisConfig"},
      {"{indexerConfig: {kvBlockIndexConfig: {costAwareMemoryConfig: {size: 2GiB}}}}",
       "costAwareMemoryConfig"},
      {"{indexerConfig: {kvCacheBackendConfigs: [{weight: 1}]}}", "name of a tier"},
      {"{indexerConfig: {kvCacheBackendConfigs: [{name: gpu, weight: 2}]}}", "weight"},
      {"{tokenProcessorConfig: {hashAlgorithm: md5}}", "expected cbor-fnv or xxh64"},
      {"{tokenProcessorConfig: {blockSizeTokens: 0}}", "blockSizeTokens"},
      {"{speculativeTTL: 5s}", "means nothing without speculativeIndexing"}};
  for (const auto& [parameters, why] : cases) {
    const auto graph = LoadGraph(
        Config({std::string("{type: ") + kPrecise + ", parameters: " + parameters + "}"}), {});
    ASSERT_FALSE(graph.ok()) << parameters;
    EXPECT_THAT(graph.status().message(), HasSubstr(why)) << parameters;
  }
}

TEST(PreciseScorer, IsProducerAndScorerInOne) {
  auto s = MakeScheduler(
      Config({"{type: precise-prefix-cache-scorer, parameters: {speculativeIndexing: true, "
              "tokenProcessorConfig: {blockSizeTokens: 4}}}"}));
  const std::vector<EndpointState> pool = {Ep("a"), Ep("b")};
  RequestSpec r;
  r.body = R"({"model":"m","prompt":[1,2,3,4,5,6,7,8,9]})";
  EXPECT_THAT(Raw(Must(*s, r, pool)), ElementsAre(0, 0));
  RequestSpec half;
  half.body = R"({"model":"m","prompt":[1,2,3,4,0,0,0,0]})";
  const Decision d = Must(*s, half, pool);
  std::vector<double> raw = Raw(d);
  std::sort(raw.begin(), raw.end());
  EXPECT_THAT(raw, ElementsAre(0, 0.5));
}

// The peer: any producer's matches will do; here guesses, which are in no tier the peers serve.
class P2p : public DirectorFixture {
 protected:
  static std::string Peer(const std::string& more = "") {
    return "{type: p2p-source-producer, parameters: {" + more + "}}";
  }
  std::string Source(const std::string& id) {
    const Routing r = Route(R"({"model":"m","prompt":")" + prompt_ + "\"}",
                            {{"x-request-id", id}, {"test-epp-endpoint-selection", pick_}});
    EXPECT_TRUE(r.ok) << r.denial.message;
    return std::string(FindHeader(r.set_headers, "x-kv-cache-source-host-port"));
  }
  std::string prompt_ = std::string(4096, 'p'), pick_;
};

TEST_F(P2p, ThePeerWithMoreIsNamedAndTheHolderItselfIsNot) {
  Start(Two(), {"{type: header-based-testing-filter}", Peer()});
  pick_ = "127.0.0.1:8001";
  EXPECT_EQ(Source("1"), "") << "nobody holds anything";
  EXPECT_EQ(Source("2"), "") << "the computing endpoint holds it all";
  pick_ = "127.0.0.1:8002";
  EXPECT_EQ(Source("3"), "127.0.0.1:8001");
  EXPECT_EQ(Source("4"), "") << "now it has it too";
}

TEST_F(P2p, AGainBelowTheDeltaIsNotWorthIt) {
  Start(Two(), {"{type: header-based-testing-filter}", Peer("minCachedTokenDelta: 1025")});
  pick_ = "127.0.0.1:8001";
  Source("1");  // 1024 tokens
  pick_ = "127.0.0.1:8002";
  EXPECT_EQ(Source("2"), "");
}

TEST_F(P2p, APeerOutsideTheRequestsSubsetIsNotNamed) {
  Start(Two(), {"{type: header-based-testing-filter}", Peer()});
  pick_ = "127.0.0.1:8001";
  EXPECT_EQ(Source("1"), "");
  const Routing r =
      Route(R"({"model":"m","prompt":")" + prompt_ + "\"}",
            {{"test-epp-endpoint-selection", "127.0.0.1:8002"}}, {"127.0.0.1:8002"}, true);
  ASSERT_TRUE(r.ok);
  EXPECT_EQ(FindHeader(r.set_headers, "x-kv-cache-source-host-port"), "");
}

TEST_F(P2p, TheClientsOwnHeaderNeverPasses) {
  Start(Two(), {Peer()});
  const Routing r =
      Route(R"({"model":"m","prompt":"x"})", {{"x-kv-cache-source-host-port", "10.9.9.9:1"}});
  EXPECT_THAT(r.remove_headers, ::testing::Contains("x-kv-cache-source-host-port"));
}

}  // namespace
}  // namespace llmd::sched
