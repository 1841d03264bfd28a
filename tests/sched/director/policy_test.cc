// Objectives, rewrites, admitters and request header hooks as a request meets them.
#include "llmd/sched/policy.h"

#include <deque>

#include "llmd/sched/request_context.h"
#include "sched/director_support.h"

namespace llmd::sched {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::Pair;

constexpr char kBody[] = R"({"model":"m","prompt":"hello"})";
constexpr char kOne[] = "{name: a, address: 127.0.0.1, port: 8001}";
// Spliced into the fixture's "endpoints: […]".
const std::string kObjectives =
    std::string(kOne) +
    "]\nobjectives: [{name: low, priority: -1}, {name: high, priority: 7}, {name: zero}";

TEST(RewriteRule, ChoosesByWeightAndLeavesTheUnweightedOut) {
  RewriteRule rule;
  rule.targets = {{"a", 3}, {"b", 1}, {"never", 0}};
  uint64_t random = 1;
  std::map<std::string, int> seen;
  for (int i = 0; i < 4000; ++i) ++seen[rule.Choose(random)];
  EXPECT_EQ(seen.count("never"), 0u);
  EXPECT_NEAR(seen["a"], 3000, 150);
  EXPECT_NEAR(seen["b"], 1000, 150);
}

TEST(RewriteRule, IsUniformWithoutWeights) {
  RewriteRule rule;
  rule.targets = {{"a"}, {"b"}};
  uint64_t random = 9;
  std::map<std::string, int> seen;
  for (int i = 0; i < 2000; ++i) ++seen[rule.Choose(random)];
  EXPECT_NEAR(seen["a"], 1000, 120);
}

TEST(PoolPolicy, ExactRulesGoBeforeGenericOnesAndTheFirstWins) {
  PoolPolicy policy;
  policy.rules = {{"r1", {}, {{"generic"}}},
                  {"r2", {"m"}, {{"exact"}}},
                  {"r3", {"m"}, {{"later"}}},
                  {"r4", {}, {{"second"}}}};
  EXPECT_EQ(policy.RuleFor("m")->rewrite, "r2");
  EXPECT_EQ(policy.RuleFor("x")->rewrite, "r1");
  EXPECT_EQ(policy.RuleFor("")->rewrite, "r1");
  EXPECT_EQ(PoolPolicy().RuleFor("m"), nullptr);
}

TEST_F(DirectorFixture, TheObjectiveGivesThePriorityUnderBothHeaderNames) {
  Start(kObjectives, {"{type: queue-scorer}"});
  const std::vector<std::pair<HeaderList, std::string>> cases = {
      {{{"x-llm-d-inference-objective", "high"}}, "priority=\"7\""},
      {{{"x-gateway-inference-objective", "low"}}, "priority=\"-1\""},
      {{{"x-llm-d-inference-objective", "unknown"}}, "priority=\"0\""}};
  for (const auto& [headers, label] : cases) {
    const Routing r = Route(kBody, headers);
    EXPECT_THAT(metrics_.Expose(), HasSubstr(label));
    EXPECT_THAT(r.remove_headers, ElementsAre(headers[0].first));
  }
}

TEST_F(DirectorFixture, OnlySheddableRequestsAreShedWhenThePoolIsFull) {
  Start(kObjectives,
        {"{type: concurrency-detector, parameters: {maxConcurrency: 1}}", "{type: queue-scorer}"},
        "schedulingProfiles: [{name: p, plugins: [{pluginRef: queue-scorer}]}]\n"
        "flowControl: {saturationDetector: {pluginRef: concurrency-detector}}");
  const Routing first = Route(kBody);
  ASSERT_TRUE(first.ok);
  const Denial shed =
      Route(kBody, {{"x-request-id", "shed"}, {"x-llm-d-inference-objective", "low"}}).denial;
  EXPECT_EQ(shed.http_status, 429);
  EXPECT_EQ(shed.dropped_reason, "rejected-saturated");
  EXPECT_EQ(shed.retry_after_s, 1);
  EXPECT_THAT(*director_->Explain("shed"), HasSubstr("\"denied_status\":429"));
  EXPECT_TRUE(Route(kBody, {{"x-llm-d-inference-objective", "high"}}).ok);
  EXPECT_TRUE(Route(kBody).ok);
}

TEST_F(DirectorFixture, BandsFollowTheObjectives) {
  Start(kObjectives, {"{type: concurrency-detector, parameters: {maxConcurrency: 1}}"},
        "schedulingProfiles: [{name: p}]\nfeatureGates: [flowControl]\n"
        "flowControl: {saturationDetector: {pluginRef: concurrency-detector}}");
  Routing first = Route(kBody);
  const Answers answers;
  std::deque<HeaderList> headers;  // held: the requests wait
  for (const char* objective : {"low", "zero", "high"}) {
    headers.push_back({{":path", "/v1/completions"}, {"x-llm-d-inference-objective", objective}});
    RequestInput input;
    input.headers = &headers.back();
    input.body = kBody;
    director_->Route(std::move(input), answers.To(objective));
  }
  EXPECT_THAT(answers.Names(), IsEmpty());
  director_->Cancel(first.state);
  EXPECT_THAT(answers.Names(1), ElementsAre("high"));
  director_->Cancel(answers.At(0).state);
  EXPECT_THAT(answers.Names(2), ElementsAre("high", "zero"));
  director_->Cancel(answers.At(1).state);
  EXPECT_THAT(answers.Names(3), ElementsAre("high", "zero", "low"));
}

TEST_F(DirectorFixture, WithoutAnyEndpointASheddableRequestIs503) {
  Start("]\nobjectives: [{name: low, priority: -1}",
        {"{type: concurrency-detector, parameters: {maxConcurrency: 1}}", "{type: queue-scorer}"},
        "schedulingProfiles: [{name: p, plugins: [{pluginRef: queue-scorer}]}]\n"
        "flowControl: {saturationDetector: {pluginRef: concurrency-detector}}");
  for (const char* objective : {"low", ""}) {
    const Routing r = Route(kBody, {{"x-llm-d-inference-objective", objective}});
    EXPECT_EQ(r.denial.http_status, 503) << objective;
    EXPECT_EQ(r.denial.dropped_reason, "rejected-no-endpoints") << objective;
  }
}

TEST_F(DirectorFixture, ARetryKeepsTheModelOfTheFirstTry) {
  Start(std::string(kOne) +
            "]\nrewrites: [{name: split, rules: [{targets: [{modelRewrite: v1}, {modelRewrite: "
            "v2}]}]}",
        {"{type: queue-scorer}"});
  headers_ = {{":path", "/v1/completions"}};
  for (int i = 0; i < 20; ++i) {
    const Routing first = Route(kBody);
    ASSERT_FALSE(first.target_model.empty());
    RequestInput input;
    input.headers = &headers_;
    input.body = kBody;
    input.first_target = first.target_model;
    Routing again;
    director_->Route(std::move(input), [&](Routing r) { again = std::move(r); });
    EXPECT_EQ(again.target_model, first.target_model);
    EXPECT_THAT(Applied(kBody, again.body_edits), HasSubstr('"' + first.target_model + '"'));
  }
}

TEST_F(DirectorFixture, RulesOverrideTheHeaderAndAreCounted) {
  Start(std::string(kOne) +
            "]\nrewrites: [{name: canary, rules: [{matches: [{model: {value: m}}], targets: "
            "[{modelRewrite: v2}]}]}",
        {"{type: queue-scorer}"});
  const Routing r = Route(kBody, {{"x-llm-d-model-name-rewrite", "asked"}});
  EXPECT_EQ(Applied(kBody, r.body_edits), R"({"model":"v2","prompt":"hello"})");
  EXPECT_EQ(r.trace->model, "v2");
  EXPECT_THAT(metrics_.Expose(),
              HasSubstr("llm_d_epp_model_rewrite_decisions_total{model_name=\"m\",model_rewrite_"
                        "name=\"canary\",target_model=\"v2\"} 1.0"));
  const std::string other = R"({"model":"other","prompt":"p"})";
  EXPECT_EQ(Applied(other, Route(other, {{"x-llm-d-model-name-rewrite", "asked"}}).body_edits),
            R"({"model":"asked","prompt":"p"})");
  EXPECT_THAT(Route(other).body_edits, IsEmpty());
}

TEST_F(DirectorFixture, ARuleForEveryModelFillsInAMissingOne) {
  Start(std::string(kOne) + "]\nrewrites: [{name: all, rules: [{targets: [{modelRewrite: base}]}]}",
        {"{type: queue-scorer}"});
  const std::string body = R"({"prompt":"x"})";
  EXPECT_EQ(Applied(body, Route(body).body_edits), R"({"model":"base","prompt":"x"})");
}

TEST_F(DirectorFixture, AnAdmittersDenialKeepsItsStatusAndIsExplained) {
  Start(kObjectives,
        {"{type: probabilistic-admitter, parameters: {k: 1000000}}", "{type: queue-scorer}"});
  // Never scraped endpoints count as full: a sheddable request is refused for certain.
  const Denial d =
      Route(kBody, {{"x-request-id", "no"}, {"x-llm-d-inference-objective", "low"}}).denial;
  EXPECT_EQ(d.http_status, 429);
  EXPECT_EQ(d.dropped_reason, "rejected-saturated");
  EXPECT_THAT(d.message, HasSubstr("cannot be admitted"));
  const auto trace = DecisionFromJson(*json::Parse(*director_->Explain("no")));
  ASSERT_TRUE(trace.ok());
  EXPECT_EQ(trace->denied_status, 429);
  EXPECT_EQ(trace->denied_reason, "rejected-saturated");
  EXPECT_THAT(trace->profiles, IsEmpty());
  EXPECT_TRUE(Route(kBody).ok);
}

TEST_F(DirectorFixture, AgentSessionsBecomeFairnessIdsUnlessOneIsNamed) {
  Start(kOne, {"{type: agent-identity, parameters: {additionalSessionHeaders: [X-Mine]}}",
               "{type: queue-scorer}"});
  const auto fairness = [&](HeaderList headers) {
    Route(kBody, std::move(headers));
    return metrics_.Expose();
  };
  EXPECT_THAT(fairness({{"session-id", "s1"}}), HasSubstr("fairness_id=\"s1\""));
  EXPECT_THAT(fairness({{"x-claude-code-session-id", "c"}, {"session_id", "late"}}),
              HasSubstr("fairness_id=\"c\""));
  EXPECT_THAT(fairness({{"x-mine", "own"}}), HasSubstr("fairness_id=\"own\""));
  const std::string page =
      fairness({{"session-id", "hidden"}, {"x-llm-d-inference-fairness-id", "named"}});
  EXPECT_THAT(page, HasSubstr("fairness_id=\"named\""));
  EXPECT_THAT(page, Not(HasSubstr("hidden")));
  EXPECT_THAT(fairness({}), HasSubstr("fairness_id=\"default-flow\""));
}

TEST_F(DirectorFixture, AnUnknownProfileHeaderIs429) {
  Start(Two(),
        {"{type: header-profile-handler, parameters: {defaultProfile: x}}", "{type: queue-scorer}",
         "{type: kv-cache-utilization-scorer}"},
        "schedulingProfiles: [{name: x, plugins: [{pluginRef: queue-scorer}]}, {name: y, plugins: "
        "[{pluginRef: kv-cache-utilization-scorer}]}]");
  EXPECT_EQ(Route(kBody).trace->profiles[0].profile, "x");
  EXPECT_EQ(Route(kBody, {{"epp-profile", "y"}}).trace->profiles[0].profile, "y");
  const Denial d = Route(kBody, {{"epp-profile", "z"}}).denial;
  EXPECT_EQ(d.http_status, 429);
  EXPECT_THAT(d.message, HasSubstr("does not exist"));
}

TEST_F(DirectorFixture, ASingleProfileIsUsedWhateverTheHeader) {
  Start(Two(), {"{type: header-profile-handler}", "{type: queue-scorer}"});
  EXPECT_TRUE(Route(kBody, {{"epp-profile", "z"}}).ok);
}

TEST_F(DirectorFixture, DataParallelRanksAreReachedThroughThePrimaryPort) {
  Start(kOne, {"{type: data-parallel-profile-handler, parameters: {primaryPort: 9000}}",
               "{type: queue-scorer}"});
  const Routing r = Route(kBody, {{"x-data-parallel-host-port", "evil:1"}});
  EXPECT_THAT(r.endpoints, ElementsAre("127.0.0.1:9000"));
  EXPECT_THAT(r.set_headers, Contains(Pair("x-data-parallel-host-port", "127.0.0.1:8001")));
  EXPECT_THAT(r.remove_headers, IsEmpty());
}

TEST_F(DirectorFixture, ThePrimaryPortIs8000ByDefault) {
  Start(kOne, {"{type: data-parallel-profile-handler}", "{type: queue-scorer}"});
  EXPECT_THAT(Route(kBody).endpoints, ElementsAre("127.0.0.1:8000"));
}

}  // namespace
}  // namespace llmd::sched
