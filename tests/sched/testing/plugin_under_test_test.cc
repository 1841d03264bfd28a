#include "llmd/sched/testing/plugin_under_test.h"

#include <cmath>

#include "llmd/sched/testing/pool.h"
#include "sched/support.h"

namespace llmd::sched::testing {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::unique_ptr<PluginUnderTest> Make(std::string_view type, std::string_view parameters = "{}") {
  auto made = PluginUnderTest::Create(nullptr, type, parameters);
  EXPECT_TRUE(made.ok()) << made.status().ToString();
  return std::move(*made);
}

const FakeRequest kHello = FakeRequest::Completions("hello");

TEST(PluginUnderTest, ScoresAsTheFormulaSays) {
  const std::vector<EndpointState> pool{FakeEndpoint("a").Waiting(4), FakeEndpoint("b").Waiting(1),
                                        FakeEndpoint("c").Waiting(0)};
  auto scorer = Make("queue-scorer");
  EXPECT_THAT(*scorer->ScoreOf(kHello, pool), ElementsAre(0.0, 0.75, 1.0));
  const auto scene = *scorer->Set(kHello, pool);
  const std::vector<uint32_t> two{1, 0};
  EXPECT_THAT(*scorer->Score(*scene, two), ElementsAre(1.0, 0.0));
}

TEST(PluginUnderTest, FactsStandInForProducers) {
  const std::vector<EndpointState> pool{FakeEndpoint("a"), FakeEndpoint("b"), FakeEndpoint("c")};
  auto scorer = Make("prefix-cache-scorer");
  EXPECT_THAT(scorer->DataKeys(), Contains("PrefixCacheMatchInfo/approx-prefix-cache-producer"));
  const FakeRequest request =
      FakeRequest(kHello).With("PrefixCacheMatchInfo", PrefixMatch({{"b", 3}, {"c", 12}}, 12));
  EXPECT_THAT(*scorer->ScoreOf(request, pool), ElementsAre(0.0, 0.25, 1.0));
  EXPECT_THAT(*scorer->ScoreOf(kHello, pool), ElementsAre(0.0, 0.0, 0.0));
}

TEST(PluginUnderTest, PredictionsAreFactsToo) {
  const std::vector<EndpointState> pool{FakeEndpoint("a"), FakeEndpoint("b"), FakeEndpoint("c")};
  const FakeRequest request = FakeRequest(kHello).With(
      "LatencyPredictionInfo",
      PredictedLatency({{"a", 100}, {"b", 200}, {"c", 300}}, {{"a", 10}, {"b", 10}, {"c", 10}}));
  EXPECT_THAT(*Make("latency-scorer")->ScoreOf(request, pool), ElementsAre(1.0, 0.61, 0.2));
}

TEST(PluginUnderTest, AttributesComeFromAnExtractorBesideIt) {
  const std::vector<EndpointState> pool{FakeEndpoint("a").Attribute("heat", 9),
                                        FakeEndpoint("b").Attribute("heat", 3)};
  const std::string parameters = "{attributeKey: heat, algorithm: {type: linear_lower_is_better}}";
  auto scorer = PluginUnderTest::Create(
      nullptr, "endpoint-attribute-scorer", parameters,
      {"{type: core-metrics-extractor, parameters: {customMetrics: [{attributeKey: heat, "
       "metricSpec: heat}]}}"});
  ASSERT_TRUE(scorer.ok()) << scorer.status().ToString();
  EXPECT_THAT(*(*scorer)->ScoreOf(kHello, pool), ElementsAre(0.0, 1.0));
  EXPECT_THAT(Make("queue-scorer")->ScoreOf(kHello, pool).status().message(),
              HasSubstr("an attribute 'heat'"));
}

TEST(PluginUnderTest, AFactNobodyReadsIsAnError) {
  const auto scene =
      Make("queue-scorer")
          ->Set(FakeRequest(kHello).With("PrefixCacheMatchInfo", Fact()), TiedPool(1));
  ASSERT_FALSE(scene.ok());
  EXPECT_THAT(scene.status().message(), HasSubstr("does not read PrefixCacheMatchInfo"));
}

TEST(PluginUnderTest, FiltersByName) {
  const std::vector<EndpointState> pool{FakeEndpoint("a").Role("decode"),
                                        FakeEndpoint("b").Role("prefill"), FakeEndpoint("c")};
  EXPECT_THAT(*Make("decode-filter")->KeptOf(kHello, pool), ElementsAre("a", "c"));
  EXPECT_THAT(*Make("prefill-filter")->KeptOf(kHello, pool), ElementsAre("b"));
}

TEST(PluginUnderTest, PicksTheBestAndCountsTies) {
  const std::vector<EndpointState> pool = TiedPool(3);
  auto picker = Make("max-score-picker", "{maxNumOfEndpoints: 2}");
  const auto scene = *picker->Set(kHello, pool);
  const Picks picks = *picker->Pick(*scene, std::vector<double>{0.1, 0.9, 0.5});
  EXPECT_THAT(picks.picked, ElementsAre(1u, 2u));
  EXPECT_EQ(picks.tied, 1);
  EXPECT_THAT(picker->Pick(*scene, std::vector<double>{1}).status().message(),
              HasSubstr("1 totals for 3 candidates"));
}

TEST(PluginUnderTest, HeadersBodiesAndPathsReachThePlugin) {
  const std::vector<EndpointState> pool{FakeEndpoint("a").Label("zone", "north"),
                                        FakeEndpoint("b").Label("zone", "south")};
  auto scorer = Make("header-label-affinity-scorer", "{headerName: x-zone, labelKey: zone}");
  EXPECT_THAT(*scorer->ScoreOf(FakeRequest(kHello).Header("x-zone", "south"), pool),
              ElementsAre(0.0, 1.0));
  const FakeRequest chat =
      FakeRequest::Chat({{"system", "Be brief."}, {"user", "Hi"}}).MaxTokens(7).Priority(3);
  const auto scene = *scorer->Set(chat, pool);
  EXPECT_EQ(scene->request.api, Api::kChat);
  EXPECT_EQ(scene->request.max_tokens, 7);
  EXPECT_EQ(scene->request.priority, 3);
  EXPECT_FALSE(scorer->Set(FakeRequest::Raw("/v1/completions", "{nope"), pool).ok());
}

TEST(PluginUnderTest, OnlyWhatItIs) {
  auto scorer = Make("queue-scorer");
  const auto scene = *scorer->Set(kHello, TiedPool(2));
  EXPECT_THAT(scorer->Keep(*scene).status().message(), HasSubstr("is no filter"));
  EXPECT_THAT(scorer->Pick(*scene, std::vector<double>{1, 1}).status().message(),
              HasSubstr("is no picker"));
  EXPECT_FALSE(PluginUnderTest::Create(nullptr, "queue-scorer", "{bogus: 1}").ok());
}

TEST(Pool, RepeatsForASeedAndIsVaried) {
  const auto a = MixedPool(60), b = MixedPool(60), c = MixedPool(60, 8);
  std::set<double> queues;
  bool other = false;
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].info, b[i].info);
    EXPECT_EQ(a[i].metrics.waiting, b[i].metrics.waiting);
    queues.insert(a[i].metrics.waiting);
    other |= a[i].metrics.waiting != c[i].metrics.waiting;
  }
  EXPECT_GT(queues.size(), 5u);
  EXPECT_TRUE(other);
}

TEST(Pool, UnknownOnesHaveNanAndNeverScraped) {
  int nan = 0, never = 0;
  for (const EndpointState& e : UnknownPool(12)) {
    nan += std::isnan(e.metrics.waiting);
    never += !e.metrics.ever;
  }
  EXPECT_EQ(nan, 4);
  EXPECT_EQ(never, 4);
}

}  // namespace
}  // namespace llmd::sched::testing
