// The filters that weigh cache against load, by hand-made numbers.
#include "sched/support.h"

namespace llmd::sched {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<std::string> Kept(const Decision& d, size_t filter = 0) {
  std::vector<std::string> out;
  for (int i : d.trace.profiles.at(0).filters.at(filter).kept)
    out.push_back(d.trace.endpoints[i].substr(8));
  return out;
}

// 256 bytes are a block: 10 blocks.
std::string TenBlocks() {
  return std::string(2560, 'p');
}

class AffinityFilter : public ::testing::Test {
 protected:
  void Start(const std::string& parameters) {
    scheduler_ = MakeScheduler(
        Config({"{type: prefix-cache-affinity-filter, parameters: {" + parameters + "}}"}));
  }
  void Send(const std::string& endpoint, const std::string& prompt, bool keep = false) {
    RequestSpec r = Prompt(prompt);
    r.keep_in_flight = keep;
    Must(*scheduler_, r, {Ep(endpoint)});
  }
  std::vector<std::string> Ask(const std::string& prompt) {
    return Kept(Must(*scheduler_, Prompt(prompt), {Ep("a"), Ep("b"), Ep("c")}));
  }
  std::unique_ptr<Scheduler> scheduler_;
};

TEST_F(AffinityFilter, KeepsAllWithoutAMatchAndTheStickyWithOne) {
  Start("");
  EXPECT_THAT(Ask(TenBlocks()), ElementsAre("a", "b", "c"));
}

TEST_F(AffinityFilter, StickyBeginsAtTheThreshold) {
  Start("");
  Send("b", TenBlocks().substr(0, 2048));  // 8 of 10 blocks: 0.8
  EXPECT_THAT(Ask(TenBlocks()), ElementsAre("b"));
  Start("");
  Send("b", TenBlocks().substr(0, 1792));  // 7 of 10
  EXPECT_THAT(Ask(TenBlocks()), ElementsAre("a", "b", "c"));
}

TEST_F(AffinityFilter, AStickyQueueThatCostsTooMuchFreesTheChoice) {
  Start("maxTTFTPenaltyMs: 100, peakPrefillThroughput: 1000");
  Send("b", TenBlocks());
  Send("b", std::string(400, 'q'), true);  // 100 tokens at 1,000/s: 100 ms, not more
  EXPECT_THAT(Ask(TenBlocks()), ElementsAre("b"));
  Send("b", std::string(4, 'r'), true);
  EXPECT_THAT(Ask(TenBlocks()), ElementsAre("a", "b", "c"));
}

TEST_F(AffinityFilter, ExplorationKeepsAllAtTimes) {
  Start("explorationProbability: 0.5");
  Send("b", TenBlocks());
  int all = 0;
  for (int i = 0; i < 200; ++i) {
    const Decision d = Must(*scheduler_, Prompt(TenBlocks()), {Ep("a"), Ep("b")});
    all += Kept(d).size() == 2;
    if (Kept(d).size() == 2 && d.picked[0].endpoint != "default/b") break;  // now cached there too
  }
  EXPECT_GT(all, 0);
}

TEST_F(AffinityFilter, WithoutPredictionsThePredictorHoldsNothingAgainstTheCache) {
  Start("ttftSource: latencyPredictor, maxTTFTPenaltyMs: 1");
  Send("b", TenBlocks());
  EXPECT_EQ(Must(*scheduler_, Prompt(TenBlocks()), {Ep("a"), Ep("b")}).picked[0].endpoint,
            "default/b");
}

TEST(UtilizationFilter, DropsWhatExceedsAnyCondition) {
  auto s = MakeScheduler(
      Config({"{type: utilization-filter, parameters: {conditions: [{metric: waiting-queue, "
              "maxValue: 4}, {metric: kv-cache-utilization, maxValue: 0.5}]}}"}));
  const std::vector<EndpointState> pool = {Ep("a", 4, 0, 0.5), Ep("b", 5, 0, 0.1),
                                           Ep("c", 0, 0, 0.51)};
  EXPECT_THAT(Kept(Must(*s, Prompt("x"), pool)), ElementsAre("a"));
}

TEST(UtilizationFilter, AnEmptyResultIsSaturationUnlessItFallsBack) {
  const std::string conditions = "conditions: [{metric: running-requests, maxValue: 1}]";
  auto strict =
      MakeScheduler(Config({"{type: utilization-filter, parameters: {" + conditions + "}}"}));
  EXPECT_EQ(Must(*strict, Prompt("x"), {Ep("a", 0, 2)}).denied_status, 429);
  auto lax = MakeScheduler(Config(
      {"{type: utilization-filter, parameters: {" + conditions + ", fallbackOnEmpty: true}}"}));
  EXPECT_TRUE(Must(*lax, Prompt("x"), {Ep("a", 0, 2)}).ok);
}

TEST(UtilizationFilter, CountsOwnRequestsAndTakesTheUnknownAsZero) {
  auto s = MakeScheduler(
      Config({"{type: utilization-filter, parameters: {conditions: [{metric: active-requests, "
              "maxValue: 0}, {metric: waiting-queue, maxValue: 0}]}}"}));
  EndpointState unknown = Ep("b");
  unknown.metrics.waiting = std::nan("");
  RequestSpec r = Prompt("x");
  r.keep_in_flight = true;
  EXPECT_TRUE(Must(*s, r, {Ep("a")}).ok);
  EXPECT_THAT(Kept(Must(*s, Prompt("x"), {Ep("a"), unknown})), ElementsAre("b"));
}

TEST(UtilizationFilter, ChecksItsConditions) {
  const auto s = Scheduler::FromYaml(Config(
      {"{type: utilization-filter, parameters: {conditions: [{metric: heat, maxValue: 1}, {metric: "
       "waiting-queue}]}}"}));
  EXPECT_THAT(s.status().message(), HasSubstr("got 'heat'"));
  EXPECT_THAT(s.status().message(), HasSubstr("maxValue"));
  EXPECT_FALSE(Scheduler::FromYaml(Config({"{type: utilization-filter}"})).ok());
}

TEST(HeaderBasedTestingFilter, FollowsTheHeadersOrderAndIsEmptyWithoutIt) {
  auto s = MakeScheduler(Config({"{type: header-based-testing-filter}"}));
  std::vector<EndpointState> pool = {Ep("a"), Ep("b"), Ep("c")};
  pool[1].info.address = "10.0.0.2";
  pool[2].info.address = "10.0.0.3";
  RequestSpec r = Prompt("x");
  EXPECT_EQ(Must(*s, r, pool).denied_status, 503);
  r.headers = {{"test-epp-endpoint-selection", "10.0.0.3, 10.0.0.1,10.0.0.3"}};
  EXPECT_THAT(Kept(Must(*s, r, pool)), ElementsAre("c", "a"));
  r.headers = {{"test-epp-endpoint-selection", "10.0.0.2,10.0.0.3  ,10.0.0.1"}};
  EXPECT_THAT(Kept(Must(*s, r, pool)), ElementsAre("b", "c", "a"));
  r.headers = {{"test-epp-endpoint-selection", pool[1].info.HostPort()}};
  EXPECT_THAT(Kept(Must(*s, r, pool)), ElementsAre("b"));
  r.headers = {{"test-epp-endpoint-selection", "10.0.0.2:1"}};
  EXPECT_FALSE(Must(*s, r, pool).ok);
}

TEST(HeaderLabelAffinityScorer, IsOneWhereLabelAndHeaderAgree) {
  auto s = MakeScheduler(Config(
      {"{type: header-label-affinity-scorer, parameters: {headerName: X-Zone, labelKey: zone}}"}));
  std::vector<EndpointState> pool = {Ep("a"), Ep("b"), Ep("c")};
  pool[0].info.labels["zone"] = "north";
  pool[1].info.labels["zone"] = "south";
  RequestSpec r = Prompt("x");
  EXPECT_THAT(Raw(Must(*s, r, pool)), ElementsAre(0.0, 0.0, 0.0));
  r.headers = {{"x-zone", "south"}};
  EXPECT_THAT(Raw(Must(*s, r, pool)), ElementsAre(0.0, 1.0, 0.0));
}

TEST(UtilizationDetector, AsAFilterDropsTheFullAndTheStaleUnlessNoneRemain) {
  FakeClock clock;
  clock.Advance(std::chrono::seconds(10));
  auto s = MakeScheduler(
      Config({"{type: utilization-detector}"}) +
          "schedulingProfiles: [{name: p, plugins: [{pluginRef: utilization-detector}]}]",
      1, &clock);
  const auto fresh = [&](EndpointState e) {
    e.metrics.updated = clock.Now();
    return e;
  };
  const EndpointState full = fresh(Ep("full", 5)), kv = fresh(Ep("kv", 0, 0, 0.8)),
                      good = fresh(Ep("good", 4, 0, 0.79)), stale = Ep("stale");
  EXPECT_THAT(Kept(Must(*s, Prompt("x"), {full, kv, good, stale})), ElementsAre("good"));
  EXPECT_THAT(Kept(Must(*s, Prompt("x"), {full, stale})), ElementsAre("full", "stale"));
}

}  // namespace
}  // namespace llmd::sched
