// What plugins tell the proxy of an answer: the expression over its usage, and both reporters.
#include "llmd/sched/config_loader.h"
#include "plugins/reporter/usage_expression.h"
#include "sched/director_support.h"

namespace llmd::sched {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;

Usage Said() {
  Usage u;
  u.prompt_tokens = 30;
  u.completion_tokens = 12;
  u.cached_tokens = 16;
  u.total_tokens = 42;
  return u;
}

double Value(const std::string& text, const Usage& usage = Said()) {
  const StatusOr<UsageExpression> e = UsageExpression::Compile(text);
  EXPECT_TRUE(e.ok()) << text << ": " << e.status().ToString();
  return e.ok() ? e->Evaluate(usage).value_or(-777) : -778;
}

TEST(UsageExpression, KnowsTheFourFields) {
  EXPECT_EQ(Value("usage.prompt_tokens"), 30);
  EXPECT_EQ(Value("usage.completion_tokens"), 12);
  EXPECT_EQ(Value("usage.total_tokens"), 42);
  EXPECT_EQ(Value("usage.prompt_tokens_details.cached_tokens"), 16);
}

TEST(UsageExpression, WhatWasNotSaidIsNought) {
  EXPECT_EQ(Value("usage.prompt_tokens + 5", Usage()), 5);
  EXPECT_EQ(Value("has(usage.prompt_tokens)", Usage()), 0);
  EXPECT_EQ(Value("has( usage.prompt_tokens )"), 1);
}

TEST(UsageExpression, FollowsPrecedenceAndParentheses) {
  EXPECT_EQ(Value("1 + 2 * 3"), 7);
  EXPECT_EQ(Value("(1 + 2) * 3"), 9);
  EXPECT_EQ(Value("10 - 4 - 3"), 3);
  EXPECT_EQ(Value("-2 * -3"), 6);
  EXPECT_EQ(Value("2 * usage.completion_tokens + usage.prompt_tokens"), 54);
  EXPECT_EQ(Value("1 + 1 == 2 && !(3 < 2)"), 1);
  EXPECT_EQ(Value("true || 1 / 0 == 1"), 1);
  EXPECT_EQ(Value("false && 1 / 0 == 1"), 0);
  EXPECT_EQ(Value("1 < 2 ? 5 : 6"), 5);
  EXPECT_EQ(Value("1 > 2 ? 5 : 2 > 1 ? 7 : 8"), 7);
  EXPECT_EQ(Value("true == false"), 0);
}

TEST(UsageExpression, IntegersDivideAsIntegersAndDoublesAsDoubles) {
  EXPECT_EQ(Value("7 / 2"), 3);
  EXPECT_EQ(Value("-7 / 2"), -3);
  EXPECT_EQ(Value("7.0 / 2"), 3.5);
  EXPECT_EQ(Value("usage.prompt_tokens / 4"), 7.5);
  EXPECT_EQ(Value("int(usage.prompt_tokens) / 4"), 7);
  EXPECT_EQ(Value("double(7) / 2"), 3.5);
  EXPECT_EQ(Value("1 / 0"), -777);
  EXPECT_EQ(Value("int(1.9)"), 1);
}

TEST(UsageExpression, RefusesWhatItCannotWorkOut) {
  const std::pair<const char*, const char*> cases[] = {
      {"", "expected a number"},
      {"usage.price", "'usage.price' is not known; known: usage.prompt_tokens"},
      {"request.model", "not known"},
      {"1 +", "at byte 3: expected a number"},
      {"1 2", "unexpected '2'"},
      {"(1", "expected ')'"},
      {"1 ? 2 : 3", "expected a boolean before '?'"},
      {"true ? 1 : false", "a boolean beside a number"},
      {"true ? 1", "expected ':'"},
      {"true + 1", "a boolean beside a number"},
      {"true + true", "expected numbers"},
      {"1 && 2", "expected booleans"},
      {"1 < 2 < 3", "a boolean beside a number"},
      {"!1", "'!' of a number"},
      {"-true", "'-' of a boolean"},
      {"has(1)", "not known"},
      {"has(usage.total_tokens", "expected ')'"},
      {"int(true)", "int() of a boolean"},
      {"int 1", "expected '(' after int"},
      {"1.2.3", "expected a number, got '1.2.3'"},
      {"usage.prompt_tokens % 2", "unexpected '%'"},
      {"size(usage)", "not known"},
  };
  for (const auto& [text, why] : cases) {
    const StatusOr<UsageExpression> e = UsageExpression::Compile(text);
    ASSERT_FALSE(e.ok()) << text;
    EXPECT_THAT(e.status().message(), HasSubstr(why)) << text;
  }
}

TEST(UsageExpression, IsBounded) {
  EXPECT_FALSE(UsageExpression::Compile(std::string(70, '(') + "1" + std::string(70, ')')).ok());
  EXPECT_FALSE(UsageExpression::Compile(std::string(70, '-') + "1").ok());
  EXPECT_FALSE(UsageExpression::Compile(std::string(5000, '1')).ok());
  EXPECT_TRUE(UsageExpression::Compile(std::string(20, '(') + "1" + std::string(20, ')')).ok());
  std::string wide = "1";
  for (int i = 0; i < 1000; ++i) wide += "+1";
  EXPECT_EQ(Value(wide), 1001);
}

class Reporters : public DirectorFixture {
 protected:
  // A plugin entry with one attribute.
  static std::string Reporter(const std::string& rest) {
    return "{type: request-attribute-reporter, parameters: {attributes: [" + rest + "]}}";
  }
  std::vector<ReportedAttribute> Answered(const std::string& answer) {
    const Routing r = Route(R"({"model":"m","prompt":"hi"})");
    EXPECT_TRUE(r.ok);
    director_->OnResponseHeaders(r.state, 200, {});
    std::string out;
    for (size_t i = 0; i < answer.size(); i += 7)
      director_->OnResponseBody(r.state, answer.substr(i, 7), false, &out);
    EXPECT_THAT(director_->TakeReport(r.state), IsEmpty()) << "before the end";
    director_->OnResponseBody(r.state, "", true, &out);
    std::vector<ReportedAttribute> report = director_->TakeReport(r.state);
    EXPECT_THAT(director_->TakeReport(r.state), IsEmpty()) << "taken twice";
    return report;
  }
};

constexpr char kAnswer[] =
    R"({"usage":{"prompt_tokens":5,"completion_tokens":7,"prompt_tokens_details":{"cached_tokens":4}}})";

TEST_F(Reporters, TheValueStandsUnderItsKey) {
  Start(Two(), {"{type: queue-scorer}",
                Reporter("{key: {namespace: billing, name: cost}, expression: "
                         "'10 * usage.prompt_tokens + usage.completion_tokens'}")});
  const auto report = Answered(kAnswer);
  ASSERT_EQ(report.size(), 1u);
  EXPECT_EQ(report[0].metadata_namespace, "billing");
  EXPECT_EQ(report[0].name, "cost");
  EXPECT_EQ(report[0].value, 57);
}

TEST_F(Reporters, TheNamespaceIsEnvoysByDefaultAndTheTotalIsASum) {
  Start(Two(),
        {"{type: queue-scorer}", Reporter("{key: {name: n}, expression: usage.total_tokens}")});
  const auto report = Answered(kAnswer);
  ASSERT_EQ(report.size(), 1u);
  EXPECT_EQ(report[0].metadata_namespace, "envoy.lb");
  EXPECT_EQ(report[0].value, 12);
}

TEST_F(Reporters, NoughtAndWhatNoIntegerHoldsAreNotWritten) {
  for (const char* expression :
       {"usage.prompt_tokens - 5", "0.9", "usage.prompt_tokens / 0.0", "1 / 0", "1e300"}) {
    Start(Two(), {"{type: queue-scorer}",
                  Reporter("{key: {name: n}, expression: '" + std::string(expression) + "'}")});
    EXPECT_THAT(Answered(kAnswer), IsEmpty()) << expression;
  }
}

TEST_F(Reporters, TheConditionDecides) {
  Start(Two(), {"{type: queue-scorer}",
                Reporter("{key: {name: n}, expression: usage.completion_tokens, condition: "
                         "'has(usage.completion_tokens) && usage.completion_tokens > 6'}")});
  EXPECT_EQ(Answered(kAnswer).size(), 1u);
  EXPECT_THAT(Answered(R"({"usage":{"completion_tokens":6}})"), IsEmpty());
  EXPECT_THAT(Answered("{}"), IsEmpty());
}

TEST_F(Reporters, AnAbortedAnswerReportsNothing) {
  Start(Two(), {"{type: queue-scorer}", Reporter("{key: {name: n}, expression: '1'}")});
  const Routing r = Route(R"({"model":"m","prompt":"hi"})");
  director_->Cancel(r.state);
  EXPECT_THAT(director_->TakeReport(r.state), IsEmpty());
  EXPECT_THAT(director_->TakeReport(nullptr), IsEmpty());
}

TEST(ReporterParameters, ErrorsNameTheKeyAndTheRule) {
  const std::pair<const char*, const char*> cases[] = {
      {"[]", "exactly one attribute, got 0"},
      {"[{key: {name: a}, expression: '1'}, {key: {name: b}, expression: '1'}]", "got 2"},
      {"[{expression: '1'}]", "expected the name of the metadata key"},
      {"[{key: {name: a}}]", "expected a number, a field"},
      {"[{key: {name: a}, expression: usage.price}]", "'usage.price' is not known"},
      {"[{key: {name: a}, expression: 'true'}]", "expected a number, not a boolean"},
      {"[{key: {name: a}, expression: '1', condition: '1'}]", "expected a boolean"},
      {"[{key: {name: a}, expression: '1', unit: x}]", "unit"},
      {"[{key: {name: a, space: b}, expression: '1'}]", "space"}};
  for (const auto& [attributes, why] : cases) {
    const auto graph =
        LoadGraph(Config({"{type: request-attribute-reporter, parameters: {attributes: " +
                          std::string(attributes) + "}}"}),
                  {});
    ASSERT_FALSE(graph.ok()) << attributes;
    EXPECT_THAT(graph.status().message(), HasSubstr(why)) << attributes;
  }
}

TEST_F(Reporters, TheVerifierShowsWhatTheProxySaid) {
  Start(Two(), {"{type: queue-scorer}", "{type: destination-endpoint-served-verifier}"});
  const std::string name = "x-conformance-test-served-endpoint";
  Routing r = Route(R"({"model":"m","prompt":"hi"})");
  director_->OnServed(r.state, "127.0.0.1:8002");
  EXPECT_THAT(director_->OnResponseHeaders(r.state, 200, {}),
              Contains(Pair(name, "127.0.0.1:8002")));
  r = Route(R"({"model":"m","prompt":"hi"})");
  director_->OnServed(r.state, "");
  EXPECT_THAT(director_->OnResponseHeaders(r.state, 200, {}),
              Contains(Pair(name, "fail: missing destination endpoint served metadata")));
  r = Route(R"({"model":"m","prompt":"hi"})");
  EXPECT_THAT(director_->OnResponseHeaders(r.state, 200, {}),
              Contains(Pair(name, "fail: missing envoy lb metadata")));
  director_->OnServed(nullptr, "x");
}

}  // namespace
}  // namespace llmd::sched
