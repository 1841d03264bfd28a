// The documented log lines of one request, in their order and levels.
#include "sched/director_support.h"

namespace llmd::sched {
namespace {

using ::testing::ElementsAreArray;
using ::testing::HasSubstr;

TEST_F(DirectorFixture, LogsOneRequestAsDocumented) {
  Start(
      "{name: a, address: 127.0.0.1, port: 8001, labels: {llm-d.ai/role: decode}}, "
      "{name: b, address: 127.0.0.1, port: 8002, labels: {llm-d.ai/role: decode}}",
      {"{type: decode-filter}", "{type: session-affinity-scorer}",
       "{name: prefix-aware-scorer, type: prefix-cache-scorer}", "{type: load-aware-scorer}"});
  const Routing r = Route(R"({"model":"m","prompt":"hello"})",
                          {{"x-request-id", "rid"}, {"authorization", "Bearer secret"}});
  ASSERT_TRUE(r.ok);
  director_->OnResponseHeaders(r.state, 200, {{":status", "200"}});
  std::string out;
  director_->OnResponseBody(r.state, R"({"usage":{"prompt_tokens":75,"completion_tokens":500}})",
                            true, &out);
  const std::vector<std::pair<std::string, std::string>> expected = {
      {"LLM request assembled", "Level(-4)"},
      {"Disagregated prefill/decode disabled - scheduling to decode worker only", "Level(-4)"},
      {"Scheduling a request", "Level(-4)"},
      {"Before running filter plugins", "Level(-4)"},
      {"Running filter plugin", "Level(-4)"},
      {"Filter plugin result", "Level(-4)"},
      {"After running filter plugins", "Level(-4)"},
      {"Before running scorer plugins", "Level(-4)"},
      {"Running scorer", "Level(-4)"},
      {"After running scorer", "Level(-4)"},
      {"Running scorer", "Level(-4)"},
      {"Got pod scores", "Level(-4)"},
      {"No scores found for pods", "Level(-4)"},
      {"After running scorer", "Level(-4)"},
      {"Running scorer", "Level(-4)"},
      {"After running scorer", "Level(-4)"},
      {"After running scorer plugins", "Level(-4)"},
      {"Before running picker plugin", "Level(-4)"},
      {"Selecting a pod with the max score from 2 candidates", "Level(-4)"},
      {"Selecting a random pod from 2 candidates", "Level(-4)"},
      {"After running picker plugin", "Level(-4)"},
      {"Running post-schedule plugin", "Level(-4)"},
      {"PostResponse called", "info"},
      {"Request handled", "Level(-2)"},
      {"LLM response assembled", "Level(-4)"},
      {"Prefix aware scorer cleanup", "Level(-4)"},
      {"Response generated", "Level(-3)"},
  };
  std::vector<std::pair<std::string, std::string>> got;
  std::vector<std::string> scorers;
  for (const json::Value& line : sink_->Lines()) {
    if (line["x-request-id"].AsString() != "rid") continue;
    got.emplace_back(line["msg"].AsString(), line["level"].AsString());
    if (line["msg"].AsString() == "Running scorer") scorers.push_back(line["scorer"].AsString());
    if (line["msg"].AsString() == "Running filter plugin")
      EXPECT_EQ(line["plugin"].AsString(), "decode-filter");
    if (line["msg"].AsString() == "Got pod scores") {
      EXPECT_EQ(line["logger"].AsString(), "prefix-aware-scorer");
      EXPECT_EQ(line["scores"].Dump(), R"({"default/a":0.0,"default/b":0.0})");
    }
    if (line["msg"].AsString() == "After running picker plugin")
      EXPECT_THAT(line.Dump(), HasSubstr("\"Score\":0.5"));
    EXPECT_THAT(line.Dump(), ::testing::Not(HasSubstr("secret")));
  }
  EXPECT_THAT(got, ElementsAreArray(expected));
  EXPECT_THAT(scorers, ElementsAreArray({"session-affinity-scorer", "prefix-aware-scorer",
                                         "load-aware-scorer"}));
}

TEST_F(DirectorFixture, DefaultLevelWritesTwoLinesARequest) {
  Start(Two(), {"{type: prefix-cache-scorer}"}, "", LogLevel::kDefault);
  ASSERT_TRUE(Route(R"({"model":"m","prompt":"hello"})", {{"x-request-id", "rid"}}).ok);
  EXPECT_THAT(Messages("rid"), ElementsAreArray({"PostResponse called", "Request handled"}));
}

}  // namespace
}  // namespace llmd::sched
