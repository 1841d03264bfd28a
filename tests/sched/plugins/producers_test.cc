// In-flight counts and prefix memory over the life of requests.
#include <algorithm>
#include <limits>
#include <map>
#include <set>
#include <thread>

#include "llmd/sched/config_loader.h"
#include "llmd/sched/producer.h"
#include "plugins/producer/inflight_flows.h"
#include "plugins/producer/prefix_index.h"
#include "sched/director_support.h"

namespace llmd::sched {
namespace {

using ::testing::DoubleEq;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

RequestSpec Held(const std::string& prompt) {
  RequestSpec r = Prompt(prompt);
  r.keep_in_flight = true;
  return r;
}

class PrefixSeries : public DirectorFixture {};

TEST_F(PrefixSeries, ShowTheLongestMatchInBytes) {
  Start(Two(), {"{type: prefix-cache-scorer}"});
  const std::string body = R"({"model":"m","prompt":")" + std::string(1024, 'x') + "\"}";
  for (int i = 0; i < 2; ++i) ASSERT_TRUE(Route(body).ok);
  const std::string page = metrics_.Expose();
  for (const char* name : {"llm_d_epp_", "inference_extension_"}) {
    EXPECT_THAT(page, ::testing::ContainsRegex(std::string(name) +
                                               "prefix_indexer_hit_bytes_sum[^\n]* 1024.0"));
    EXPECT_THAT(page, ::testing::ContainsRegex(std::string(name) +
                                               "prefix_indexer_hit_bytes_count[^\n]* 2.0"));
  }
}

TEST_F(PrefixSeries, HaveTheFieldsBuckets) {
  Start(Two(), {"{type: prefix-cache-scorer}"});
  ASSERT_TRUE(Route(R"({"model":"m","prompt":"x"})").ok);
  const auto buckets = [page = metrics_.Expose()](const std::string& name) {
    std::vector<double> out;
    for (size_t at = 0; (at = page.find("\n" + name + "_bucket{", at)) != std::string::npos; ++at)
      out.push_back(std::stod(page.substr(page.find("le=\"", at) + 4)));
    return out;
  };
  const auto infinity = std::numeric_limits<double>::infinity();
  EXPECT_THAT(buckets("llm_d_epp_prefix_indexer_hit_ratio"),
              ElementsAre(0, .1, .2, .3, .4, .5, .6, .7, .8, .9, 1, infinity));
  EXPECT_THAT(buckets("llm_d_epp_prefix_indexer_hit_bytes"),
              ElementsAre(0, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536,
                          infinity));
}

class InflightSeries : public DirectorFixture {};

TEST_F(InflightSeries, FollowRequestsAndEndpoints) {
  using ::testing::ContainsRegex;
  Start("{name: a, address: 127.0.0.1, port: 8001}", {"{type: active-request-scorer}"});
  const std::string body = R"({"model":"m","prompt":")" + std::string(400, 'x') + "\"}";
  const Routing first = Route(body);
  const Routing second = Route(body);
  const std::string labels =
      ".endpoint_name=\"a\",fairness_id=\"default-flow\",namespace=\"default\",priority=\"0\","
      "producer_name=\"inflight-load-producer\". ";
  EXPECT_THAT(metrics_.Expose(), ContainsRegex("inflight_requests" + labels + "2.0\n"));
  EXPECT_THAT(metrics_.Expose(), ContainsRegex("inflight_tokens" + labels + "200.0\n"));
  std::string replaced;
  director_->OnResponseHeaders(first.state, 200, {});
  director_->OnResponseBody(first.state, "{}", true, &replaced);
  EXPECT_THAT(metrics_.Expose(), ContainsRegex("inflight_requests" + labels + "1.0\n"));
  const std::string& yaml = options_.config_yaml;
  ASSERT_TRUE(director_->Reload(yaml.substr(0, yaml.find("dataLayer:"))).ok());
  EXPECT_THAT(metrics_.Expose(), ::testing::Not(HasSubstr("inflight_requests{")));
}

TEST(InflightLoad, OutputIsEstimatedUpToTheRequestsLimitAndTheCap) {
  const auto load = [](const std::string& parameters, const std::string& body) {
    auto s = MakeScheduler(
        Config({"{type: inflight-load-producer, parameters: {" + parameters + "}}",
                "{type: token-load-scorer, parameters: {queueThresholdTokens: 1000}}"}));
    RequestSpec r;
    r.body = body;
    return (1 - Raw(Must(*s, r, {Ep("a")}))[0]) * 1000;
  };
  const std::string prompt = R"({"model":"m","prompt":")" + std::string(400, 'x') + "\"";
  EXPECT_NEAR(load("", prompt + "}"), 100, 1e-6);
  EXPECT_NEAR(load("addEstimatedOutputTokens: true", prompt + "}"), 250, 1e-6);
  EXPECT_NEAR(load("addEstimatedOutputTokens: true, outputRatio: 2", prompt + "}"), 300, 1e-6);
  EXPECT_NEAR(load("addEstimatedOutputTokens: true", prompt + ",\"max_tokens\":20}"), 120, 1e-6);
  EXPECT_NEAR(load("addEstimatedOutputTokens: true, maxEstimatedOutputTokens: 30", prompt + "}"),
              130, 1e-6);
}

TEST(InflightLoad, WhatIsCachedIsNotLoad) {
  auto s = MakeScheduler(
      Config({"{type: prefix-cache-scorer}",
              "{type: token-load-scorer, parameters: {queueThresholdTokens: 1000}}"}));
  const std::string prompt(2560, 'x');  // 640 tokens, 10 blocks
  EXPECT_THAT(Raw(Must(*s, Held(prompt), {Ep("a")}), 1), ElementsAre(DoubleEq(0.36)));
  // All cached now: only the 640 in flight count.
  EXPECT_THAT(Raw(Must(*s, Prompt(prompt), {Ep("a")}), 1), ElementsAre(DoubleEq(0.36)));
}

TEST(InflightLoad, APartOfABlockHoldsNoMoreTokensThanThereAre) {
  auto s = MakeScheduler(
      Config({"{type: prefix-cache-scorer}",
              "{type: token-load-scorer, parameters: {queueThresholdTokens: 1000}}"}));
  const auto ask = [&](const std::string& prompts) {
    RequestSpec r;
    r.body = R"({"model":"m","prompt":[)" + prompts + "]}";
    return (1 - Raw(Must(*s, r, {Ep("a")}), 1)[0]) * 1000;
  };
  const std::string seen = "\"" + std::string(400, 'x') + "\"";   // 100 tokens: a block and a part
  const std::string fresh = "\"" + std::string(800, 'y') + "\"";  // 200 tokens
  EXPECT_NEAR(ask(seen), 100, 1e-6);
  EXPECT_NEAR(ask(seen + "," + fresh), 200, 1e-6);
}

TEST(InflightLoad, WhatTheTiersWeighIsNotWhatIsCached) {
  const auto graph = LoadGraph(Config({"{type: inflight-load-producer}"}), {});
  ASSERT_TRUE(graph.ok()) << graph.status().ToString();
  Snapshot snapshot;
  auto set = std::make_shared<EndpointSet>();
  set->Add(std::make_shared<const EndpointInfo>(Ep("a").info), 0);
  snapshot.set = set;
  snapshot.Add(std::make_shared<const EndpointMetrics>());
  RequestContext request;
  request.Reset((*graph)->attribute_count);
  const auto key = [&](const char* type) {
    const auto& keys = (*graph)->data_keys;
    const auto at = std::ranges::find_if(keys, [&](const auto& k) { return k.first == type; });
    return static_cast<DataKey>(at - keys.begin());
  };
  Attribute& prompt = request.Put(key("TokenizedPrompt"));
  prompt.tokens.resize(160);
  prompt.bounds = {160};
  Attribute& match = request.Put(key("PrefixCacheMatchInfo"));
  match.total = 10;
  match.block_size = 16;
  match.per_endpoint = {4 * 0.8};  // by weight; four blocks of the cpu tier
  match.second = {4};
  const auto is_it = [](const auto& p) { return p->type() == "inflight-load-producer"; };
  Plugin& plugin = **std::ranges::find_if((*graph)->plugins, is_it);
  ASSERT_TRUE(dynamic_cast<Producer&>(plugin).Produce(request, snapshot).ok());
  EXPECT_DOUBLE_EQ(request.Get(key("UncachedRequestTokens"))->per_endpoint[0], 160 - 64);
}

TEST(InflightLoad, CountsFollowTheNameNotThePosition) {
  auto s = MakeScheduler(Config({"{type: active-request-scorer}"}));
  Must(*s, Held("x"), {Ep("busy")});
  EXPECT_THAT(Raw(Must(*s, Prompt("x"), {Ep("idle"), Ep("busy")})), ElementsAre(1.0, 0.0));
  EXPECT_THAT(Raw(Must(*s, Prompt("x"), {Ep("busy"), Ep("idle")})), ElementsAre(0.0, 1.0));
}

TEST_F(DirectorFixture, TokensEndWithTheFirstChunkAndRequestsWithTheLast) {
  Start("{name: a, address: 127.0.0.1, port: 8001}",
        {"{type: token-load-scorer, parameters: {queueThresholdTokens: 1000}}",
         "{type: active-request-scorer}"});
  const std::string body = R"({"model":"m","prompt":")" + std::string(400, 'x') + "\"}";
  const auto scores = [&](size_t scorer) {
    const Routing r = Route(body);
    director_->Cancel(r.state);
    return r.trace->profiles[0].scores[scorer].raw[0];
  };
  const Routing first = Route(body);
  EXPECT_DOUBLE_EQ(scores(0), 0.8);  // 100 in flight and 100 of its own
  EXPECT_DOUBLE_EQ(scores(1), 0);
  std::string out;
  director_->OnResponseHeaders(first.state, 200, {});
  director_->OnResponseBody(first.state, "data: 1\n\n", false, &out);
  EXPECT_DOUBLE_EQ(scores(0), 0.9);
  EXPECT_DOUBLE_EQ(scores(1), 0);
  director_->OnResponseBody(first.state, "", true, &out);
  EXPECT_DOUBLE_EQ(scores(1), 1);
}

TEST(InflightFlows, CountsByEndpointAndFlow) {
  InflightFlows flows;
  const auto endpoint = std::make_shared<EndpointInfo>();
  endpoint->name = "a";
  const auto shown = [&] {
    std::map<std::string, double> out;
    flows.ForEach([&](const EndpointInfo& e, const InflightFlows::Flow& flow, double requests,
                      double tokens) {
      out[e.name + " " + flow.fairness_id + " " + flow.priority + " requests"] = requests;
      out[e.name + " " + flow.fairness_id + " " + flow.priority + " tokens"] = tokens;
    });
    return out;
  };
  const uint64_t red = flows.Of("red", 0), urgent = flows.Of("red", 7);
  EXPECT_EQ(flows.Of("red", 0), red);
  flows.Start(red, EndpointId{3}, endpoint, 10);
  flows.Start(red, EndpointId{3}, endpoint, 5);
  flows.Start(urgent, EndpointId{3}, endpoint, 1);
  flows.End(red, EndpointId{3}, 1, 10);
  EXPECT_EQ(shown(), (std::map<std::string, double>{{"a red 0 requests", 1},
                                                    {"a red 0 tokens", 5},
                                                    {"a red 7 requests", 1},
                                                    {"a red 7 tokens", 1}}));
  flows.Forget(*endpoint);
  EXPECT_TRUE(shown().empty());
  flows.End(red, EndpointId{3}, 1, 5);
  flows.Start(urgent, EndpointId{4}, endpoint, 2);  // the next life of that name
  EXPECT_EQ(shown(),
            (std::map<std::string, double>{{"a red 7 requests", 1}, {"a red 7 tokens", 2}}));
}

TEST(InflightFlows, AreBounded) {
  InflightFlows flows;
  const auto endpoint = std::make_shared<EndpointInfo>();
  for (uint64_t i = 0; i < 20'000; ++i) {
    const uint64_t flow = flows.Of("client-" + std::to_string(i), static_cast<int>(i % 10));
    flows.Start(flow, EndpointId{i}, endpoint, 1);
    flows.End(flow, EndpointId{i}, 1, 1);
  }
  std::set<std::string> names;
  size_t shown = 0;
  flows.ForEach([&](const EndpointInfo&, const InflightFlows::Flow& flow, double, double) {
    names.insert(flow.fairness_id);
    ++shown;
  });
  EXPECT_LE(shown, 4096u);
  EXPECT_LE(names.size(), 1001u);
  EXPECT_TRUE(names.contains("other"));
}

TEST(ApproxPrefix, BlocksAreAtLeast64TokensAndAsReportedAbove) {
  const auto matched = [](int reported, const std::string& parameters, size_t shared_bytes) {
    auto s = MakeScheduler(
        Config({"{type: approx-prefix-cache-producer, parameters: {" + parameters + "}}",
                "{type: prefix-cache-scorer}"}));
    EndpointState e = Ep("a");
    e.metrics.block_size = reported;
    Must(*s, Prompt(std::string(shared_bytes, 'x') + std::string(1024, 'y')), {e});
    return Raw(Must(*s, Prompt(std::string(shared_bytes, 'x') + std::string(1024, 'z')), {e}))[0];
  };
  EXPECT_DOUBLE_EQ(matched(16, "", 256), 1.0 / 5);   // one block of 64 tokens of five
  EXPECT_DOUBLE_EQ(matched(128, "", 512), 1.0 / 3);  // one of 128
  EXPECT_DOUBLE_EQ(matched(128, "", 256), 0);        // half a block
  EXPECT_DOUBLE_EQ(matched(128, "autoTune: false", 256), 1.0 / 5);
  EXPECT_DOUBLE_EQ(matched(16, "autoTune: false, blockSizeTokens: 128", 512), 1.0 / 3);
}

EndpointState WithBlocks(const std::string& name, int block_size) {
  EndpointState e = Ep(name);
  e.metrics.block_size = block_size;
  return e;
}

TEST(ApproxPrefix, AnEndpointWithoutMetricsDoesNotRenameTheBlocksOfAll) {
  auto s = MakeScheduler(Config({"{type: prefix-cache-scorer}"}));
  const std::string prompt(4096, 'x');  // 1024 tokens
  const std::vector<EndpointState> all = {WithBlocks("a", 128), WithBlocks("b", 128)};
  const size_t to = Must(*s, Prompt(prompt), all).picked[0].index;
  const auto matched = [&](int a, int b) {
    return Raw(Must(*s, Prompt(prompt), {WithBlocks("a", a), WithBlocks("b", b)}))[to];
  };
  EXPECT_EQ(matched(0, 128), 1) << "the first is new";
  EXPECT_EQ(matched(128, 0), 1);
  EXPECT_EQ(matched(0, 0), 1) << "nobody was read lately";
}

TEST(ApproxPrefix, BlocksAreOfTheSizeOfMostAndOfTheSmallerAmongEquals) {
  const auto block = [](const std::vector<int>& sizes) {
    auto s = MakeScheduler(Config({"{type: prefix-cache-scorer}"}));
    std::vector<EndpointState> all;
    for (size_t i = 0; i < sizes.size(); ++i)
      all.push_back(WithBlocks("e" + std::to_string(i), sizes[i]));
    const std::string shared(1024, 'x');  // 256 tokens, then 256 that differ
    const size_t to = Must(*s, Prompt(shared + std::string(1024, 'y')), all).picked[0].index;
    // 2 blocks of 128 or 1 of 256 match; of 512 none.
    const double raw = Raw(Must(*s, Prompt(shared + std::string(1024, 'z')), all))[to];
    return raw == 0 ? 512 : 0;
  };
  EXPECT_EQ(block({512, 128, 128}), 0);
  EXPECT_EQ(block({128, 512, 512}), 512);
  EXPECT_EQ(block({512, 128}), 0);
  EXPECT_EQ(block({128, 512}), 0);
  EXPECT_EQ(block({0, 0, 512}), 512);
}

TEST(ApproxPrefix, ForgetsBeyondItsCapacity) {
  auto s = MakeScheduler(
      Config({"{type: approx-prefix-cache-producer, parameters: {lruCapacityPerServer: 4}}",
              "{type: prefix-cache-scorer}"}));
  const std::string a(1024, 'a'), b(1024, 'b');  // four blocks each
  Must(*s, Prompt(a), {Ep("e")});
  EXPECT_EQ(Raw(Must(*s, Prompt(a), {Ep("e")}))[0], 1);
  Must(*s, Prompt(b), {Ep("e")});
  EXPECT_EQ(Raw(Must(*s, Prompt(a), {Ep("e")}))[0], 0);
}

TEST(ApproxPrefix, Remembers31250BlocksAnEndpointByDefault) {
  constexpr size_t kBlockBytes = 256, kLongest = 2048, kCapacity = 31'250;
  for (const size_t beyond : {0, 1}) {
    auto s = MakeScheduler(Config({"{type: prefix-cache-scorer}"}));
    char name = 'a';
    for (size_t left = kCapacity + beyond; left > 0;) {
      const size_t blocks = std::min(left, kLongest);
      Must(*s, Prompt(std::string(blocks * kBlockBytes, name++)), {Ep("e")});
      left -= blocks;
    }
    const std::string first(kLongest * kBlockBytes, 'a');
    EXPECT_EQ(Raw(Must(*s, Prompt(first), {Ep("e")}))[0],
              static_cast<double>(kLongest - beyond) / kLongest);
  }
}

TEST(ApproxPrefix, LongPromptsMatchUpToTheLimit) {
  auto s = MakeScheduler(
      Config({"{type: approx-prefix-cache-producer, parameters: {maxPrefixTokensToMatch: 128}}",
              "{type: prefix-cache-scorer}"}));
  Must(*s, Prompt(std::string(512, 'x') + "one"), {Ep("e")});
  EXPECT_EQ(Raw(Must(*s, Prompt(std::string(512, 'x') + "two"), {Ep("e")}))[0], 1);
}

TEST(PrefixIndexThreads, MatchesWhileOthersInsertAndRemove) {
  PrefixIndex index;
  std::vector<uint64_t> chain;
  for (uint64_t i = 0; i < 64; ++i) chain.push_back((i + 1) * 0x9e3779b97f4a7c15);
  index.Insert(chain, 0, 1000);
  std::vector<std::thread> threads;
  for (uint32_t t = 1; t <= 3; ++t) {
    threads.emplace_back([&index, &chain, t] {
      for (int i = 0; i < 300; ++i) {
        index.Insert(chain, t, 40);
        index.Remove(t);
      }
    });
  }
  for (int i = 0; i < 300; ++i) {
    std::vector<uint32_t> counts(4, 0);
    index.Match(chain, counts);
    EXPECT_EQ(counts[0], 64u);
    for (uint32_t other : {1u, 2u, 3u}) EXPECT_LE(counts[other], 40u);
  }
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(index.size(), 64u);
}

}  // namespace
}  // namespace llmd::sched
