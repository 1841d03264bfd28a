#include "cli/picker_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "support/paths.h"

namespace llmd::cli {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;
using ::testing::StartsWith;

PickerLog Read(const std::string& path) {
  std::ifstream in(path);
  EXPECT_TRUE(in) << path;
  PickerLog log;
  for (std::string line; std::getline(in, line);) log.Add(line);
  return log;
}

PickerLog ReadData(const std::string& name) {
  return Read(testing::SourcePath("tests/data/" + name));
}

TEST(PickerLog, ReadsTheGoPickerOf2025) {
  const PickerLog log = ReadData("picker_log_go_2025.jsonl");
  EXPECT_EQ(log.strange(), 1u) << "the line that is about no request";
  ASSERT_THAT(log.tries(), SizeIs(1));
  const LoggedTry& one = log.tries()[0];
  EXPECT_EQ(one.request_id, "r-1");
  EXPECT_EQ(one.model, "example/alias");
  EXPECT_EQ(one.target_model, "example/model");
  EXPECT_EQ(one.endpoint.name, "ns/decode-b");
  EXPECT_EQ(one.endpoint.address, "10.0.0.2");
  EXPECT_EQ(one.answered, 200);
  EXPECT_EQ(one.prompt_tokens, 75);
  ASSERT_THAT(one.passes, SizeIs(1));
  const LoggedPass& pass = one.passes[0];
  ASSERT_THAT(pass.pods, SizeIs(3));
  EXPECT_EQ(pass.pods[0], (LoggedPod{"ns/decode-a", "10.0.0.1", 3, 1, 0.25}));
  ASSERT_THAT(pass.filters, SizeIs(1));
  EXPECT_THAT(pass.filters[0].kept, ElementsAre("ns/decode-a", "ns/decode-b"));
  EXPECT_THAT(pass.scorers, ElementsAre("prefix-aware-scorer", "load-aware-scorer"));
  EXPECT_EQ(pass.scores.at("prefix-aware-scorer").at("ns/decode-a"), 0.25);
  EXPECT_EQ(pass.picked.name, "ns/decode-b");
  EXPECT_EQ(pass.picked_score, 0.5);
  EXPECT_TRUE(pass.by_score);
  EXPECT_EQ(pass.drawn_from, 2);
}

TEST(PickerLog, ReadsTheOlderWordings) {
  const PickerLog log = ReadData("picker_log_go_older.jsonl");
  EXPECT_EQ(log.strange(), 0u);
  ASSERT_THAT(log.tries(), SizeIs(1));
  const LoggedTry& one = log.tries()[0];
  EXPECT_EQ(one.request_id, "old-1") << "from the request's headers";
  EXPECT_EQ(one.target_model, "m-v1");
  EXPECT_EQ(one.endpoint.name, "ns/a");
  ASSERT_THAT(one.passes, SizeIs(1));
  ASSERT_THAT(one.passes[0].pods, SizeIs(2));
  EXPECT_EQ(one.passes[0].pods[1], (LoggedPod{"ns/b", "10.0.0.2", 1, 1, 0.25}));
  ASSERT_THAT(one.passes[0].filters, SizeIs(1));
  EXPECT_EQ(one.passes[0].filters[0].name, "DefaultPlugin");
  EXPECT_THAT(one.passes[0].filters[0].kept, ElementsAre("ns/a", "ns/b"));
  EXPECT_THAT(one.passes[0].scorers, ElementsAre("session-affinity-scorer"));
  EXPECT_EQ(one.passes[0].picked.name, "ns/a");
  EXPECT_TRUE(one.passes[0].by_score);
}

TEST(PickerLog, ReadsOursAndKeepsTriesAndRequestsApart) {
  const PickerLog log = ReadData("picker_log_llmd.jsonl");
  EXPECT_EQ(log.strange(), 1u) << "the line of llmd up itself";
  ASSERT_THAT(log.tries(), SizeIs(3));
  EXPECT_EQ(log.tries()[0].refused, 503);
  EXPECT_EQ(log.tries()[0].reason, "no endpoint matches");
  const LoggedTry& second = log.tries()[1];
  EXPECT_EQ(second.request_id, "again");
  EXPECT_EQ(second.endpoint.name, "default/decode-0");
  EXPECT_EQ(second.completion_tokens, 4) << "the answer belongs to the last try of its id";
  EXPECT_EQ(second.passes.at(0).totals.at("default/decode-0"), 1.5);
  EXPECT_EQ(log.tries()[2].request_id, "other");
}

TEST(PickerLog, TextShowsThePodsTheScoresAndTheChoice) {
  const std::string text = ToText(ReadData("picker_log_go_2025.jsonl").tries()[0]);
  EXPECT_THAT(text, StartsWith("request r-1, 2025-05-16T16:15:04Z\n"
                               "  model example/alias, sent as example/model\n"));
  EXPECT_THAT(text, AllOf(HasSubstr("-> ns/decode-b (10.0.0.2), answered 200, 75 prompt + 500"),
                          HasSubstr("pass 1 | decode-filter kept 2"),
                          HasSubstr("dropped by decode-filter"), HasSubstr("<- chosen"),
                          HasSubstr("scorers: prefix-aware-scorer, load-aware-scorer"),
                          HasSubstr("score 0.5, tie of 2 broken at random")));
  EXPECT_EQ(ToText(ReadData("picker_log_llmd.jsonl").tries()[0], "try 1 of 2, "),
            "try 1 of 2, request again, 2026-12-01T08:00:00Z\n  model m\n"
            "  refused with 503: no endpoint matches\n");
  EXPECT_EQ(ToLine(ReadData("picker_log_llmd.jsonl").tries()[0]),
            "2026-12-01T08:00:00Z  again  m  refused with 503: no endpoint matches\n");
}

TEST(PickerLog, TheOutcomeAloneStillTellsTriesApart) {
  PickerLog log;
  for (const char* endpoint : {"default/a", "default/b"}) {
    log.Add(std::string(R"({"msg":"Request handled","x-request-id":"i","model":"m","endpoint":")") +
            endpoint + "\"}");
  }
  ASSERT_THAT(log.tries(), SizeIs(2));
  EXPECT_EQ(log.tries()[1].endpoint.name, "default/b");
  EXPECT_THAT(ToText(log.tries()[0]), HasSubstr("verbosity 4"));
}

TEST(PickerLog, OtherLinesAreCountedAndPassedOver) {
  PickerLog log;
  for (const char* line :
       {"", "plain words", "{not json", "{\"msg\":\"Refreshed metrics\"}", "[1]", "{\"msg\":3}"})
    log.Add(line);
  EXPECT_EQ(log.strange(), log.lines());
  EXPECT_THAT(log.tries(), SizeIs(0));
}

TEST(PickerLog, NumbersThatAreNoneAreZero) {
  PickerLog log;
  for (
      const char* line :
      {R"({"msg":"Scheduling a request, Metrics: [{Pod:{NamespacedName:ns/a WaitingQueueSize:x}}]"})",
       R"({"msg":"Selecting a random pod from 99999999999999 candidates"})",
       R"({"msg":"Selecting a random pod from 1e300 candidates"})",
       R"({"msg":"LLM response assembled","response":{"Headers":{":status":"1e300"}}})"})
    log.Add(line);
  ASSERT_THAT(log.tries(), SizeIs(1));
  EXPECT_EQ(log.tries()[0].passes.at(0).pods.at(0).waiting, 0);
  EXPECT_EQ(log.tries()[0].passes.at(0).drawn_from, 1);
  EXPECT_THAT(ToLine(log.tries()[0]), HasSubstr("(no request id)"));
}

TEST(PickerLog, ReadsARealLogOfTheGoPicker) {
  const char* given = std::getenv("LLMD_TEST_DATA");
  const std::string path =
      (given != nullptr ? std::string(given) : testing::SourcePath("../shared/data")) +
      "/golden/epp_one_request_2025.jsonl";
  if (!std::filesystem::exists(path))
    GTEST_SKIP() << "the log is absent: golden/epp_one_request_2025.jsonl";
  const PickerLog log = Read(path);
  EXPECT_EQ(log.lines(), 26u);
  EXPECT_EQ(log.strange(), 0u);
  ASSERT_THAT(log.tries(), SizeIs(1));
  const LoggedTry& one = log.tries()[0];
  EXPECT_EQ(one.model, "meta-llama/Llama-3.2-3B-Instruct");
  EXPECT_EQ(one.completion_tokens, 500);
  ASSERT_THAT(one.passes, SizeIs(1));
  EXPECT_THAT(one.passes[0].scorers,
              ElementsAre("session-affinity-scorer", "prefix-aware-scorer", "load-aware-scorer"));
  EXPECT_EQ(one.passes[0].picked.name, one.endpoint.name);
  EXPECT_EQ(one.passes[0].picked_score, 0.5);
}

}  // namespace
}  // namespace llmd::cli
