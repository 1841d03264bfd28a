#include <cmath>
#include <limits>

#include "llmd/sched/config_loader.h"
#include "sched/support.h"

namespace llmd::sched {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

// A pool of endpoints e0, e1 … with these values of the attribute `heat`; NaN = without it.
std::vector<EndpointState> Heats(const std::vector<double>& values) {
  std::vector<EndpointState> out;
  for (double v : values) {
    out.push_back(Ep("e" + std::to_string(out.size())));
    if (!std::isnan(v)) out.back().attributes["heat"] = v;
  }
  return out;
}

constexpr const char* kHeat =
    "{type: core-metrics-extractor, parameters: {customMetrics: [{attributeKey: heat, metricSpec: "
    "heat}]}}";

std::string Scorer(const std::string& algorithm, const std::string& more = "attributeKey: heat") {
  return "{type: endpoint-attribute-scorer, parameters: {" + more + ", algorithm: {" + algorithm +
         "}}}";
}

std::string Filter(const std::string& comparison, const std::string& more = "") {
  return "{type: endpoint-attribute-filter, parameters: {attribute: heat, " + more +
         "algorithm: {type: threshold, threshold: {" + comparison + "}}}}";
}

std::vector<double> Scores(const std::string& algorithm, const std::vector<double>& values) {
  auto s = MakeScheduler(Config({kHeat, Scorer(algorithm)}));
  return Raw(Must(*s, Prompt("x"), Heats(values)));
}

std::vector<int> Kept(const std::string& filter, const std::vector<double>& values) {
  auto s = MakeScheduler(Config({kHeat, filter}));
  return Must(*s, Prompt("x"), Heats(values)).trace.profiles.at(0).filters.at(0).kept;
}

TEST(EndpointAttributeScorer, AdaptsToTheCandidates) {
  EXPECT_THAT(Scores("type: linear_lower_is_better", {10, 20, 15, 10}), ElementsAre(1, 0, 0.5, 1));
  EXPECT_THAT(
      Scores("type: linear_higher_is_better, normalization: {adaptiveRange: {}}", {10, 20, 15}),
      ElementsAre(0, 1, 0.5));
  EXPECT_THAT(Scores("type: linear_lower_is_better", {-5, 5}), ElementsAre(1, 0));
}

TEST(EndpointAttributeScorer, MissingIsZeroAndAllEqualIsOne) {
  EXPECT_THAT(Scores("type: linear_lower_is_better", {7, kNan, 7}), ElementsAre(1, 0, 1));
  EXPECT_THAT(Scores("type: linear_lower_is_better", {kNan, kNan}), ElementsAre(0, 0));
  EXPECT_THAT(Scores("type: linear_lower_is_better", {3}), ElementsAre(1));
  EXPECT_THAT(Scores("type: linear_higher_is_better", {HUGE_VAL, 1, 2}), ElementsAre(0, 0, 1));
}

TEST(EndpointAttributeScorer, AFixedRangeClamps) {
  const std::string fixed = "normalization: {fixedRange: {min: 0, max: 10}}";
  EXPECT_THAT(Scores("type: linear_lower_is_better, " + fixed, {2.5, -3, 30, kNan}),
              ElementsAre(0.75, 1, 0, 0));
  EXPECT_THAT(Scores("type: linear_higher_is_better, " + fixed, {5, 5}), ElementsAre(0.5, 0.5));
}

TEST(EndpointAttributeScorer, ReadsTheGaugesAndStaleOnesAsMissing) {
  auto s = MakeScheduler(
      Config({Scorer("type: linear_lower_is_better", "attributeKey: WaitingQueueSize")}));
  EndpointState unknown = Ep("c", kNan);
  EXPECT_THAT(Raw(Must(*s, Prompt("x"), {Ep("a", 4), Ep("b", 8), unknown})), ElementsAre(1, 0, 0));
}

TEST(EndpointAttributeFilter, KeepsWhatStandsInTheRelation) {
  const std::vector<double> values = {1, 2, 3};
  EXPECT_THAT(Kept(Filter("operator: LessThan, value: 2"), values), ElementsAre(0));
  EXPECT_THAT(Kept(Filter("operator: LessThanOrEqual, value: 2"), values), ElementsAre(0, 1));
  EXPECT_THAT(Kept(Filter("operator: GreaterThan, value: 2"), values), ElementsAre(2));
  EXPECT_THAT(Kept(Filter("operator: GreaterThanOrEqual, value: 2"), values), ElementsAre(1, 2));
  EXPECT_THAT(Kept(Filter("operator: Equal, value: 2"), values), ElementsAre(1));
  EXPECT_THAT(Kept(Filter("operator: NotEqual, value: 2"), values), ElementsAre(0, 2));
}

TEST(EndpointAttributeFilter, MissingPassesUnlessToldToFail) {
  const std::string less = "operator: LessThan, value: 2";
  EXPECT_THAT(Kept(Filter(less), {kNan, 5, 1}), ElementsAre(0, 2));
  EXPECT_THAT(Kept(Filter(less, "onMissing: Fail, "), {kNan, 5, 1}), ElementsAre(2));
}

TEST(EndpointAttributeFilter, AnEmptyResultIsFullOrFallsBack) {
  const std::string none = "operator: LessThan, value: 0";
  auto s = MakeScheduler(Config({kHeat, Filter(none)}));
  EXPECT_EQ(Must(*s, Prompt("x"), Heats({1, 2})).denied_status, 429);
  EXPECT_THAT(Kept(Filter(none, "fallbackOnEmpty: true, "), {1, 2}), ElementsAre(0, 1));
}

TEST(EndpointAttributes, AnyProducerIsTheOnlyOneThatFillsIt) {
  const std::string second =
      "{name: second, type: core-metrics-extractor, parameters: {customMetrics: [{attributeKey: "
      "heat, metricSpec: warmth}]}}";
  const std::string any =
      Scorer("type: linear_lower_is_better", "attributeKey: heat, producer: ''");
  EXPECT_TRUE(LoadGraph(Config({kHeat, any}), {}).ok());
  EXPECT_THAT(LoadGraph(Config({kHeat, second, any}), {}).status().message(),
              HasSubstr("'core-metrics-extractor' and 'second' both fill the attribute 'heat'"));
  const std::string named =
      Scorer("type: linear_lower_is_better", "attributeKey: heat, producer: second");
  auto s = MakeScheduler(Config({kHeat, second, named}));
  std::vector<EndpointState> pool = {Ep("a"), Ep("b")};
  pool[0].attributes = {{"heat/second", 9}, {"heat/core-metrics-extractor", 1}};
  pool[1].attributes = {{"heat/second", 3}};
  EXPECT_THAT(Raw(Must(*s, Prompt("x"), pool)), ElementsAre(0, 1));
}

TEST(EndpointAttributes, UnknownNamesAreErrorsThatListTheKnown) {
  const auto message = [](const std::string& plugin) {
    return LoadGraph(Config({kHeat, plugin}), {}).status().message();
  };
  const std::string lower = "type: linear_lower_is_better";
  EXPECT_THAT(message(Scorer(lower, "attributeKey: hat")),
              AllOf(HasSubstr("'core-metrics-extractor' fills an attribute 'hat'"),
                    HasSubstr("WaitingQueueSize"), HasSubstr("heat")));
  EXPECT_THAT(message(Scorer(lower, "attributeKey: heat, producer: dcgm-extractor")),
              HasSubstr("known: none"));
  EXPECT_THAT(message(Scorer(lower, "attributeKey: a/heat")), HasSubstr("name its producer"));
  EXPECT_THAT(message(Scorer(lower, "attributeKey: ''")), HasSubstr("expected the name"));
  auto s = MakeScheduler(Config({kHeat, Scorer(lower)}));
  std::vector<EndpointState> pool = {Ep("a")};
  pool[0].attributes["warmth"] = 1;
  EXPECT_THAT(s->Schedule(Prompt("x"), pool).status().message(), HasSubstr("'warmth'"));
}

TEST(EndpointAttributes, AlgorithmsAreChecked) {
  const auto message = [](const std::string& plugin) {
    return LoadGraph(Config({kHeat, plugin}), {}).status().message();
  };
  EXPECT_THAT(message(Scorer("type: cubic")), HasSubstr("got 'cubic'"));
  EXPECT_THAT(message(Scorer("type: linear_lower_is_better, normalization: {fixedRange: {min: 2, "
                             "max: 2}, adaptiveRange: {}}")),
              AllOf(HasSubstr("expected more than min"), HasSubstr("not both")));
  EXPECT_THAT(
      message(Scorer("type: linear_lower_is_better, normalization: {fixedRange: {min: 2}}")),
      HasSubstr("max: expected a number"));
  EXPECT_THAT(message(Scorer("type: linear_lower_is_better, normalization: {logRange: {}}")),
              HasSubstr("logRange"));
  EXPECT_THAT(message(Filter("operator: Near")),
              AllOf(HasSubstr("got 'Near'"), HasSubstr("value: expected a number")));
  EXPECT_THAT(message(Filter("operator: LessThan, value: 1", "onMissing: Keep, ")),
              HasSubstr("got 'Keep'"));
}

}  // namespace
}  // namespace llmd::sched
