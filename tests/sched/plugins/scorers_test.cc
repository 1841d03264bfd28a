#include <algorithm>
#include <cmath>
#include <limits>

#include "config/graph.h"
#include "llmd/sched/config_loader.h"
#include "llmd/sched/hooks.h"
#include "llmd/sched/scorer.h"
#include "sched/support.h"

namespace llmd::sched {
namespace {

using ::testing::DoubleEq;
using ::testing::DoubleNear;
using ::testing::Each;
using ::testing::ElementsAre;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

TEST(QueueScorer, IsRelativeToTheOthersAndOneWhenAllAreEqual) {
  auto s = MakeScheduler(Config({"{type: queue-scorer}"}));
  EXPECT_THAT(Raw(Must(*s, Prompt("p"), {Ep("a", 0), Ep("b", 4), Ep("c", 1)})),
              ElementsAre(1.0, 0.0, 0.75));
  EXPECT_THAT(Raw(Must(*s, Prompt("p"), {Ep("a", 7), Ep("b", 7)})), Each(1.0));
  EXPECT_THAT(Raw(Must(*s, Prompt("p"), {Ep("a", 9)})), ElementsAre(1.0));
}

TEST(QueueScorer, LeavesNanUnscoredAndTheOthersUntouched) {
  auto s = MakeScheduler(Config({"{type: queue-scorer}"}));
  const Decision d = Must(*s, Prompt("p"), {Ep("a", kNan), Ep("b", 4), Ep("c", 0)});
  EXPECT_TRUE(std::isnan(Raw(d)[0]));
  EXPECT_EQ(d.trace.profiles[0].totals[0], 0);
  EXPECT_EQ(Raw(d)[1], 0);
  EXPECT_EQ(Raw(d)[2], 1);
  EXPECT_EQ(d.picked[0].endpoint, "default/c");
}

TEST(RunningRequestsSizeScorer, ReadsRunningRequests) {
  auto s = MakeScheduler(Config({"{type: running-requests-size-scorer}"}));
  EXPECT_THAT(Raw(Must(*s, Prompt("p"), {Ep("a", 9, 2), Ep("b", 0, 6)})), ElementsAre(1.0, 0.0));
}

TEST(KvCacheUtilizationScorer, IsOneLessUsageAndClampedInTheTotal) {
  auto s = MakeScheduler(Config({"{type: kv-cache-utilization-scorer}"}));
  const Decision d = Must(*s, Prompt("p"), {Ep("a", 0, 0, 0.25), Ep("b", 0, 0, 1.5)});
  EXPECT_THAT(Raw(d), ElementsAre(0.75, -0.5));
  EXPECT_THAT(d.trace.profiles[0].totals, ElementsAre(0.75, 0.0));
}

TEST(LoadAwareScorer, GivesHalfToAnEmptyQueueAndZeroAtTheThreshold) {
  auto s = MakeScheduler(Config({"{type: load-aware-scorer, parameters: {threshold: 10}}"}));
  EXPECT_THAT(Raw(Must(*s, Prompt("p"), {Ep("a", 0), Ep("b", 5), Ep("c", 10), Ep("d", 99)})),
              ElementsAre(0.5, 0.25, 0.0, 0.0));
}

TEST(LoadAwareScorer, DefaultThresholdIs128) {
  auto s = MakeScheduler(Config({"{type: load-aware-scorer}"}));
  EXPECT_THAT(Raw(Must(*s, Prompt("p"), {Ep("a", 64), Ep("b", 128)})), ElementsAre(0.25, 0.0));
}

TEST(ActiveRequestScorer, CountsOwnRequestsUntilTheyFinish) {
  auto s = MakeScheduler(Config({"{type: active-request-scorer}"}));
  const std::vector<EndpointState> eps = {Ep("a"), Ep("b")};
  RequestSpec r = Prompt("p");
  r.keep_in_flight = true;
  const Decision first = Must(*s, r, eps);
  EXPECT_THAT(Raw(first), ElementsAre(1.0, 1.0));
  const size_t busy = first.picked[0].endpoint == "default/a" ? 0 : 1;
  const Decision second = Must(*s, Prompt("p"), eps);
  EXPECT_EQ(Raw(second)[busy], 0.0);
  EXPECT_EQ(Raw(second)[1 - busy], 1.0);
  s->Finish(first.id);
  s->Finish(first.id);
  EXPECT_THAT(Raw(Must(*s, Prompt("p"), eps)), ElementsAre(1.0, 1.0));
}

TEST(TokenLoadScorer, AddsThisRequestsTokensToThoseInFlight) {
  auto s =
      MakeScheduler(Config({"{type: token-load-scorer, parameters: {queueThresholdTokens: 100}}"}));
  const std::vector<EndpointState> eps = {Ep("a")};
  RequestSpec r = Prompt(std::string(80, 'x'));  // 20 pseudo-tokens
  r.keep_in_flight = true;
  EXPECT_THAT(Raw(Must(*s, r, eps)), ElementsAre(DoubleEq(0.8)));
  EXPECT_THAT(Raw(Must(*s, r, eps)), ElementsAre(DoubleEq(0.6)));
}

TEST(LoraAffinityScorer, PrefersActiveThenRoomThenWaiting) {
  auto s = MakeScheduler(Config({"{type: lora-affinity-scorer}"}));
  EndpointState active = Ep("a"), room = Ep("b"), waiting = Ep("c"), none = Ep("d");
  active.metrics.active_models = {"m"};
  room.metrics.max_active_models = 1;
  waiting.metrics.waiting_models = {"m"};
  waiting.metrics.max_active_models = 1;
  EXPECT_THAT(Raw(Must(*s, Prompt("p"), {active, room, waiting, none})),
              ElementsAre(1.0, 0.8, 0.6, 0.0));
}

TEST(SessionAffinityScorer, FollowsTheTokenAndNothingElse) {
  auto s = MakeScheduler(Config({"{type: session-affinity-scorer}"}));
  RequestSpec r = Prompt("p");
  r.headers = {{"x-session-token", "ZGVmYXVsdC9i"}};  // base64("default/b")
  EXPECT_THAT(Raw(Must(*s, r, {Ep("a"), Ep("b")})), ElementsAre(0.0, 1.0));
  EXPECT_THAT(Raw(Must(*s, r, {Ep("a"), Ep("c")})), Each(0.0));
  EXPECT_THAT(Raw(Must(*s, Prompt("p"), {Ep("a"), Ep("b")})), Each(0.0));
}

TEST(SessionAffinityScorer, BindsSessionIdsToTheFirstChoiceUntilTheTtl) {
  FakeClock clock;
  auto s = MakeScheduler(Config({"{type: session-affinity-scorer, parameters: {strategy: "
                                 "session_id, evictionTtlSeconds: 60}}"}),
                         3, &clock);
  RequestSpec r = Prompt("p");
  r.headers = {{"x-session-id", "s1"}};
  const std::vector<EndpointState> eps = {Ep("a"), Ep("b"), Ep("c")};
  const std::string bound = Must(*s, r, eps).picked[0].endpoint;
  for (int i = 0; i < 10; ++i) EXPECT_EQ(Must(*s, r, eps).picked[0].endpoint, bound);
  clock.Advance(std::chrono::seconds(61));
  EXPECT_THAT(Raw(Must(*s, r, eps)), Each(0.0));
}

TEST(SessionAffinityScorer, RemembersSessionsForFiveMinutesByDefault) {
  FakeClock clock;
  auto s = MakeScheduler(
      Config({"{type: session-affinity-scorer, parameters: {strategy: session_id}}"}), 3, &clock);
  RequestSpec r = Prompt("p");
  r.headers = {{"x-session-id", "s1"}};
  Must(*s, r, {Ep("a")});
  clock.Advance(std::chrono::seconds(300));
  EXPECT_THAT(Raw(Must(*s, r, {Ep("a")})), ElementsAre(1.0));
  clock.Advance(std::chrono::seconds(301));
  EXPECT_THAT(Raw(Must(*s, r, {Ep("a")})), ElementsAre(0.0));
}

TEST(SessionAffinityScorer, NewSessionsStickWhenThereAreTooManyAndTheLongestUnusedGo) {
  FakeClock clock;
  const auto graph =
      LoadGraph(Config({"{type: session-affinity-scorer, parameters: {strategy: session_id}}"}),
                {.clock = &clock});
  ASSERT_TRUE(graph.ok()) << graph.status().ToString();
  const auto is_it = [](const auto& p) { return p->type() == "session-affinity-scorer"; };
  Plugin& plugin = **std::ranges::find_if((*graph)->plugins, is_it);
  Snapshot snapshot;
  auto set = std::make_shared<EndpointSet>();
  set->Add(std::make_shared<EndpointInfo>(Ep("a").info), 0);
  snapshot.Add(std::make_shared<EndpointMetrics>());
  snapshot.set = set;
  RequestContext request;
  request.Reset((*graph)->attribute_count);
  HeaderList headers = {{"x-session-id", ""}}, answer;
  request.headers = &headers;
  ScheduleOutcome outcome;
  outcome.primary = {0};
  const std::vector<uint32_t> candidates = {0};
  const auto sticks = [&](int session) {
    headers[0].second = std::to_string(session);
    std::vector<double> scores(1);
    dynamic_cast<Scorer&>(plugin).Score(request, snapshot, candidates, scores);
    return scores[0] == 1;
  };
  const auto send = [&](int session) {
    headers[0].second = std::to_string(session);
    dynamic_cast<PreRequestHook&>(plugin).PreRequest(request, snapshot, outcome, answer);
  };
  for (int i = 0; i < 131'072; ++i) send(i);
  EXPECT_TRUE(sticks(0));  // used again
  for (int i = 131'072; i < 131'272; ++i) {
    send(i);
    EXPECT_TRUE(sticks(i)) << i;
  }
  EXPECT_TRUE(sticks(0));
  EXPECT_FALSE(sticks(1));
  EXPECT_FALSE(sticks(200));
  EXPECT_TRUE(sticks(201));
}

TEST(NoHitLruScorer, SpreadsColdPromptsAndIsNeutralOnAHit) {
  auto s = MakeScheduler(Config({"{type: no-hit-lru-scorer}"}));
  const std::vector<EndpointState> eps = {Ep("a"), Ep("b"), Ep("c")};
  std::map<std::string, int> seen;
  for (int i = 0; i < 3; ++i)
    ++seen[Must(*s, Prompt(std::string(400, static_cast<char>('a' + i))), eps).picked[0].endpoint];
  EXPECT_EQ(seen.size(), 3u);
  EXPECT_THAT(Raw(Must(*s, Prompt(std::string(400, 'a')), eps)), Each(0.5));
  EXPECT_THAT(Raw(Must(*s, Prompt("cold"), {Ep("z")})), ElementsAre(1.0));
}

TEST(NoHitLruScorer, ForgetsTheLongestUnusedBeyondItsSize) {
  int prompts = 0;
  const auto cold = [&] { return Prompt(std::string(400, static_cast<char>('a' + prompts++))); };
  const std::vector<EndpointState> eps = {Ep("a"), Ep("b"), Ep("c")};
  auto one = MakeScheduler(Config({"{type: no-hit-lru-scorer, parameters: {lruSize: 1}}"}));
  EXPECT_EQ(Must(*one, cold(), eps).picked[0].endpoint, "default/a");
  EXPECT_EQ(Must(*one, cold(), eps).picked[0].endpoint, "default/b");  // and a is as if never used
  EXPECT_THAT(Raw(Must(*one, cold(), eps)), ElementsAre(1.0, 0.0, 0.5));
}

TEST(NoHitLruScorer, WhoHasLeftIsForgottenAndMakesRoom) {
  const auto graph = LoadGraph(Config({"{type: no-hit-lru-scorer, parameters: {lruSize: 2}}"}), {});
  ASSERT_TRUE(graph.ok()) << graph.status().ToString();
  const auto is_it = [](const auto& p) { return p->type() == "no-hit-lru-scorer"; };
  Plugin& plugin = **std::ranges::find_if((*graph)->plugins, is_it);
  Snapshot snapshot;
  auto set = std::make_shared<EndpointSet>();
  for (uint32_t slot = 0; slot < 4; ++slot) {
    set->Add(std::make_shared<EndpointInfo>(Ep("e" + std::to_string(slot)).info), slot);
    snapshot.Add(std::make_shared<EndpointMetrics>());
  }
  snapshot.set = set;
  RequestContext request;
  request.Reset((*graph)->attribute_count);
  const auto send = [&](uint32_t endpoint) {
    ScheduleOutcome outcome;
    outcome.primary = {endpoint};
    HeaderList headers;
    dynamic_cast<PreRequestHook&>(plugin).PreRequest(request, snapshot, outcome, headers);
  };
  send(0);
  send(1);
  dynamic_cast<EndpointObserver&>(plugin).OnEndpointGone(*set->infos[1], 1);
  send(2);  // pushes 0 out unless 1 has made room
  const std::vector<uint32_t> candidates = {0, 1, 2, 3};
  std::vector<double> scores(4);
  dynamic_cast<Scorer&>(plugin).Score(request, snapshot, candidates, scores);
  EXPECT_THAT(scores,
              ElementsAre(DoubleNear(1.0 / 3, 1e-12), 1.0, 0.0, DoubleNear(2.0 / 3, 1e-12)));
}

TEST(ContextLengthAware, ScoresRangesAsSpecified) {
  auto s = MakeScheduler(Config({"{type: context-length-aware}"}));
  EndpointState fits = Ep("a"), exact = Ep("b"), outside = Ep("c"), bad = Ep("d"), none = Ep("e");
  const std::string label = "llm-d.ai/context-length-range";
  fits.info.labels[label] = "0-10000";
  exact.info.labels[label] = "100-100";
  outside.info.labels[label] = "1100-2000";
  bad.info.labels[label] = "many";
  const Decision d = Must(*s, Prompt(std::string(400, 'x')), {fits, exact, outside, bad, none});
  EXPECT_THAT(Raw(d)[0], DoubleNear(0.3 + 0.7 * (0.7 / 2 + 0.3 * 0.99), 1e-12));
  EXPECT_EQ(Raw(d)[1], 1);
  EXPECT_THAT(Raw(d)[2], DoubleNear(0.3 / 2, 1e-12));
  EXPECT_EQ(Raw(d)[3], 0);
  EXPECT_EQ(Raw(d)[4], 0.5);
}

TEST(Scorers, AllTakeNoneAndAThousandEndpoints) {
  std::vector<EndpointState> many;
  for (int i = 0; i < 1000; ++i)
    many.push_back(Ep("e" + std::to_string(i), i % 7, i % 5, (i % 10) / 10.0));
  for (const char* type :
       {"queue-scorer", "running-requests-size-scorer", "kv-cache-utilization-scorer",
        "load-aware-scorer", "active-request-scorer", "token-load-scorer", "lora-affinity-scorer",
        "session-affinity-scorer", "no-hit-lru-scorer", "context-length-aware",
        "prefix-cache-scorer"}) {
    auto s = MakeScheduler(Config({"{type: " + std::string(type) + "}"}));
    const Decision none = Must(*s, Prompt("p"), {});
    EXPECT_FALSE(none.ok) << type;
    EXPECT_EQ(none.denied_status, 503) << type;
    const Decision d = Must(*s, Prompt("p"), many);
    ASSERT_TRUE(d.ok) << type;
    for (double score : Raw(d)) EXPECT_TRUE(score >= 0 && score <= 1) << type << " " << score;
  }
}

}  // namespace
}  // namespace llmd::sched
