// What every registered plugin must hold, whatever it computes: the suites take the types from the
// registry, so a new plugin is in them without being named here.
#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include "config/graph.h"
#include "llmd/sched/config_loader.h"
#include "llmd/sched/testing/gtest.h"
#include "sched/support.h"

namespace llmd::sched {
namespace {

using ::testing::HasSubstr;
using testing::Holds;
using testing::MixedPool;
using ::testing::Not;
using testing::TiedPool;
using testing::UnknownPool;

// Types that do not build without parameters.
std::string ParametersOf(const std::string& type) {
  static const std::map<std::string, std::string> kNeeded = {
      {"by-label", "{label: zone, validValues: [north], allowsNoLabel: true}"},
      {"utilization-filter", "{conditions: [{metric: waiting-queue, maxValue: 4}]}"},
      {"header-label-affinity-scorer", "{headerName: x-zone, labelKey: zone}"},
      {"disagg-profile-handler", "{profiles: {decode: default}}"},
      {"priority-holdback-policy", "{minCeiling: 0.5}"},
      {"pd-profile-handler", "{decodeProfile: default, prefillProfile: default}"},
      {"request-attribute-reporter", "{attributes: [{key: {name: a}, expression: '1'}]}"},
      {"endpoint-attribute-filter",
       "{attribute: KVCacheUsagePercent, onMissing: Fail, algorithm: {type: threshold, threshold: "
       "{operator: LessThanOrEqual, value: 0.5}}}"},
      {"endpoint-attribute-scorer",
       "{attributeKey: KVCacheUsagePercent, algorithm: {type: linear_lower_is_better}}"},
      {"file-discovery", "{path: endpoints.yaml}"}};
  const auto it = kNeeded.find(type);
  return it == kNeeded.end() ? "{}" : it->second;
}

std::vector<std::string> TypesOf(const std::string& kind) {
  const PluginRegistry registry = BuiltinPlugins();
  std::vector<std::string> out;
  for (const std::string& type : registry.Types()) {
    if ((*registry.Find(type))->kind.find(kind) != std::string::npos) out.push_back(type);
  }
  return out;
}

// One profile of that plugin and nothing else that filters or scores.
std::string ConfigOf(const std::string& type) {
  return Config({"{type: " + type + ", parameters: " + ParametersOf(type) + "}"}) +
         "schedulingProfiles: [{name: p, plugins: [{pluginRef: " + type + "}]}]\n";
}

// `test-epp-endpoint-selection` names the first endpoint of every pool.
testing::FakeRequest Asked() {
  const EndpointState first = testing::FakeEndpoint("e0");
  return testing::FakeRequest::Completions(std::string(900, 'x'))
      .Header("x-zone", "north")
      .Header("x-session-id", "s")
      .Header("test-epp-endpoint-selection", first.info.address);
}

RequestSpec Request() {
  return Asked().Spec();
}

testing::PropertyOptions Properties(const std::string& type) {
  testing::PropertyOptions out;
  out.parameters = ParametersOf(type);
  out.request = Asked();
  return out;
}

std::map<std::string, double> ScoresByName(const Decision& d) {
  std::map<std::string, double> out;
  const ProfileTrace& p = d.trace.profiles.at(0);
  for (size_t i = 0; i < p.candidates.size(); ++i)
    out[d.trace.endpoints[p.candidates[i]]] = p.totals.at(i);
  return out;
}

class EveryScorer : public ::testing::TestWithParam<std::string> {};
class EveryFilter : public ::testing::TestWithParam<std::string> {};
class EveryPicker : public ::testing::TestWithParam<std::string> {};
class EveryDetector : public ::testing::TestWithParam<std::string> {};
class EveryPlugin : public ::testing::TestWithParam<std::string> {};

TEST_P(EveryScorer, HoldsThePropertiesOfScorers) {
  EXPECT_TRUE(Holds(testing::CheckScorer(nullptr, GetParam(), Properties(GetParam()))));
}

TEST_P(EveryFilter, HoldsThePropertiesOfFilters) {
  EXPECT_TRUE(Holds(testing::CheckFilter(nullptr, GetParam(), Properties(GetParam()))));
}

TEST_P(EveryPicker, HoldsThePropertiesOfPickers) {
  EXPECT_TRUE(Holds(testing::CheckPicker(nullptr, GetParam(), Properties(GetParam()))));
}

TEST_P(EveryScorer, StaysWithinZeroAndOneOverEverySet) {
  auto s = MakeScheduler(ConfigOf(GetParam()));
  for (const auto& pool :
       {MixedPool(1), MixedPool(2), MixedPool(1000), TiedPool(1), TiedPool(50)}) {
    const Decision d = Must(*s, Request(), pool);
    ASSERT_TRUE(d.ok);
    ASSERT_EQ(Raw(d).size(), pool.size());
    for (double score : Raw(d)) EXPECT_TRUE(score >= 0 && score <= 1) << score;
  }
  EXPECT_EQ(Must(*s, Request(), {}).denied_status, 503);
}

TEST_P(EveryScorer, TakesMissingAndNanMetrics) {
  auto s = MakeScheduler(ConfigOf(GetParam()));
  const Decision d = Must(*s, Request(), UnknownPool(30));
  ASSERT_TRUE(d.ok);
  for (double score : Raw(d)) EXPECT_TRUE(std::isnan(score) || (score >= 0 && score <= 1)) << score;
  for (double total : d.trace.profiles[0].totals) EXPECT_TRUE(total >= 0 && total <= 1) << total;
}

TEST_P(EveryScorer, DoesNotDependOnTheOrderOfTheCandidates) {
  const std::vector<EndpointState> pool = MixedPool(40);
  std::vector<EndpointState> shuffled = pool;
  std::mt19937_64 rng(3);
  std::shuffle(shuffled.begin(), shuffled.end(), rng);
  auto a = MakeScheduler(ConfigOf(GetParam())), b = MakeScheduler(ConfigOf(GetParam()));
  Must(*a, Request(), pool);
  Must(*b, Request(), pool);  // both in the same state
  EXPECT_EQ(ScoresByName(Must(*a, Request(), pool)), ScoresByName(Must(*b, Request(), shuffled)));
}

TEST_P(EveryFilter, KeepsASubsetWhateverTheOrder) {
  for (const auto& pool : {MixedPool(1), MixedPool(30), UnknownPool(30), TiedPool(5)}) {
    std::vector<EndpointState> reversed(pool.rbegin(), pool.rend());
    auto a = MakeScheduler(ConfigOf(GetParam())), b = MakeScheduler(ConfigOf(GetParam()));
    const Decision one = Must(*a, Request(), pool), two = Must(*b, Request(), reversed);
    std::vector<std::string> x, y;
    for (int i : one.trace.profiles.at(0).filters.at(0).kept) x.push_back(one.trace.endpoints[i]);
    for (int i : two.trace.profiles.at(0).filters.at(0).kept) y.push_back(two.trace.endpoints[i]);
    std::sort(x.begin(), x.end());
    std::sort(y.begin(), y.end());
    EXPECT_EQ(x, y);
    EXPECT_EQ(std::adjacent_find(x.begin(), x.end()), x.end()) << "kept twice";
    EXPECT_EQ(one.ok, !x.empty());
  }
}

TEST_P(EveryFilter, TakesAnEmptyPool) {
  auto s = MakeScheduler(ConfigOf(GetParam()));
  EXPECT_FALSE(Must(*s, Request(), {}).ok);
}

TEST_P(EveryPicker, PicksDistinctCandidatesUpToItsLimit) {
  auto s = MakeScheduler(Config({"{type: queue-scorer}", "{type: " + GetParam() +
                                                             ", parameters: {maxNumOfEndpoints: "
                                                             "3}}"}));
  for (const auto& [pool, want] : {std::pair{MixedPool(1), 1u},
                                   {MixedPool(2), 2u},
                                   {MixedPool(500), 3u},
                                   {TiedPool(4), 3u},
                                   {UnknownPool(9), 3u}}) {
    std::vector<int> picked = Must(*s, Request(), pool).trace.profiles[0].picked;
    EXPECT_EQ(picked.size(), want);
    std::sort(picked.begin(), picked.end());
    EXPECT_EQ(std::adjacent_find(picked.begin(), picked.end()), picked.end());
  }
}

TEST_P(EveryPicker, RepeatsForASeedAndVariesOverTies) {
  const std::string yaml = Config({"{type: queue-scorer}", "{type: " + GetParam() + "}"});
  std::map<std::string, int> seen;
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    auto a = MakeScheduler(yaml, seed), b = MakeScheduler(yaml, seed);
    const std::string first = Must(*a, Request(), TiedPool(4)).picked[0].endpoint;
    EXPECT_EQ(first, Must(*b, Request(), TiedPool(4)).picked[0].endpoint);
    ++seen[first];
  }
  EXPECT_EQ(seen.size(), 4u);
}

TEST_P(EveryDetector, AnEmptyPoolIsFullAndNothingIsNegativeOrNan) {
  const auto graph =
      LoadGraph(Config({"{type: " + GetParam() + "}", "{type: queue-scorer}"}) +
                    "schedulingProfiles: [{name: p, plugins: [{pluginRef: queue-scorer}]}]\n"
                    "flowControl: {saturationDetector: {pluginRef: " +
                    GetParam() + "}}\n",
                {});
  ASSERT_TRUE(graph.ok()) << graph.status().ToString();
  for (const auto& pool : {MixedPool(20), UnknownPool(20)}) {
    Snapshot snapshot;
    auto set = std::make_shared<EndpointSet>();
    std::vector<uint32_t> all;
    for (const EndpointState& e : pool) {
      all.push_back(static_cast<uint32_t>(all.size()));
      set->Add(std::make_shared<const EndpointInfo>(e.info), all.back());
      snapshot.Add(std::make_shared<const EndpointMetrics>(e.metrics));
    }
    snapshot.set = set;
    EXPECT_EQ((*graph)->saturation->Saturation(snapshot, {}), 1);
    EXPECT_GE((*graph)->saturation->Saturation(snapshot, all), 0);
  }
}

TEST_P(EveryPlugin, RefusesUnknownParametersByName) {
  std::string parameters = ParametersOf(GetParam());
  parameters.insert(1, parameters == "{}" ? "bogusKey: 1" : "bogusKey: 1, ");
  const auto graph =
      LoadGraph(Config({"{type: " + GetParam() + ", parameters: " + parameters + "}"}), {});
  ASSERT_FALSE(graph.ok());
  EXPECT_THAT(graph.status().message(), HasSubstr("bogusKey"));
}

TEST_P(EveryPlugin, BuildsUnderAnotherNameAndSaysWhatItIs) {
  const PluginRegistry registry = BuiltinPlugins();
  const PluginDescriptor& d = **registry.Find(GetParam());
  EXPECT_FALSE(d.help.empty());
  EXPECT_FALSE(d.kind.empty());
  for (const ParamHelp& p : d.params) EXPECT_FALSE(p.help.empty()) << p.name;
  const std::string entry =
      "{name: mine, type: " + GetParam() + ", parameters: " + ParametersOf(GetParam()) + "}";
  const auto graph = LoadGraph(Config({entry}), {});
  if (GetParam() == "k8s-notification-source") {
    EXPECT_THAT(graph.status().message(), HasSubstr("needs a Kubernetes watch"));
    return;
  }
  ASSERT_TRUE(graph.ok()) << graph.status().ToString();
  EXPECT_THAT(DescribeGraph(**graph).Dump(), HasSubstr("\"mine\""));
  const auto refused = LoadGraph(Config({entry}), {.allow_experimental = false});
  EXPECT_EQ(refused.ok(), d.stability != Stability::kAlpha);
}

std::string TestName(const ::testing::TestParamInfo<std::string>& info) {
  std::string out = info.param;
  std::replace(out.begin(), out.end(), '-', '_');
  return out;
}

INSTANTIATE_TEST_SUITE_P(Contract, EveryScorer, ::testing::ValuesIn(TypesOf("scorer")), TestName);
INSTANTIATE_TEST_SUITE_P(Contract, EveryFilter, ::testing::ValuesIn(TypesOf("filter")), TestName);
INSTANTIATE_TEST_SUITE_P(Contract, EveryPicker, ::testing::ValuesIn(TypesOf("picker")), TestName);
INSTANTIATE_TEST_SUITE_P(Contract, EveryDetector, ::testing::ValuesIn(TypesOf("detector")),
                         TestName);
INSTANTIATE_TEST_SUITE_P(Contract, EveryPlugin, ::testing::ValuesIn(TypesOf("")), TestName);

}  // namespace
}  // namespace llmd::sched
