#include "cli/bench/trace_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "support/paths.h"

namespace llmd::bench {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class TraceFile : public ::testing::Test {
 protected:
  std::string Written(const std::string& name, const std::string& text) {
    const auto dir = std::filesystem::temp_directory_path() /
                     ("llmd-trace-" + std::to_string(getpid()) + "-" +
                      ::testing::UnitTest::GetInstance()->current_test_info()->name());
    std::filesystem::create_directories(dir);
    dir_ = dir.string();
    std::ofstream(dir / name) << text;
    return (dir / name).string();
  }
  void TearDown() override {
    if (!dir_.empty()) std::filesystem::remove_all(dir_);
  }
  std::string Refusal(const std::string& name, const std::string& text) {
    const auto trace = Trace::Load(Written(name, text), "");
    return trace.ok() ? "" : trace.status().message();
  }
  std::string dir_;
};

TEST_F(TraceFile, ReadsMooncake) {
  const auto trace = Trace::Load(testing::SourcePath("tests/data/bench/mooncake.jsonl"), "");
  ASSERT_TRUE(trace.ok()) << trace.status().ToString();
  ASSERT_EQ(trace->entries().size(), 4u);
  EXPECT_EQ(trace->entries()[0].at_ns, 0);
  EXPECT_EQ(trace->entries()[3].at_ns, 600'500'000);
  EXPECT_EQ(trace->entries()[2].input_tokens, 24u);
  EXPECT_THAT(trace->Blocks(trace->entries()[2]), ElementsAre(1, 9, 10));
}

TEST_F(TraceFile, ReadsAzure) {
  const auto trace = Trace::Load(testing::SourcePath("tests/data/bench/azure.csv"), "");
  ASSERT_TRUE(trace.ok()) << trace.status().ToString();
  ASSERT_EQ(trace->entries().size(), 3u);
  EXPECT_EQ(trace->entries()[1].at_ns, 300'000'000);
  EXPECT_EQ(trace->entries()[2].at_ns, 900'000'000);
  EXPECT_EQ(trace->entries()[1].input_tokens, 30u);
  EXPECT_EQ(trace->entries()[1].output_tokens, 3u);
}

TEST_F(TraceFile, SortsByTimeAndKeepsTheOrderOfEqualTimes) {
  const auto trace = Trace::Load(Written("t.csv",
                                         "2024-05-10 00:00:01.5+00:00,3,1\n"
                                         "2024-05-10 00:00:00+00:00,1,1\n"
                                         "2024-05-10 00:00:01.500000,4,1\n"),
                                 "");
  ASSERT_TRUE(trace.ok()) << trace.status().ToString();
  std::vector<uint64_t> order;
  for (const auto& e : trace->entries()) order.push_back(e.input_tokens);
  EXPECT_THAT(order, ElementsAre(1, 3, 4));
  EXPECT_EQ(trace->entries()[2].at_ns, 1'500'000'000);
}

TEST_F(TraceFile, RefusesWithFileAndLine) {
  const std::string good = R"({"timestamp":1,"input_length":1,"output_length":1})";
  EXPECT_THAT(Refusal("t.jsonl", good + "\n{\n"), HasSubstr("t.jsonl line 2"));
  EXPECT_THAT(Refusal("t.jsonl", "[]\n"), HasSubstr("expected a JSON object"));
  EXPECT_THAT(Refusal("t.jsonl", R"({"timestamp":-1,"input_length":1,"output_length":1})"),
              HasSubstr("timestamp"));
  EXPECT_THAT(Refusal("t.jsonl", R"({"timestamp":1,"input_length":1.5,"output_length":1})"),
              HasSubstr("input_length"));
  EXPECT_THAT(Refusal("t.jsonl", R"({"timestamp":1,"input_length":1,"output_length":99999999})"),
              HasSubstr("output_length"));
  EXPECT_THAT(
      Refusal("t.jsonl", R"({"timestamp":1,"input_length":1,"output_length":1,"hash_ids":["a"]})"),
      HasSubstr("hash_ids"));
  EXPECT_THAT(Refusal("t.csv", "2024-13-10 00:00:00,1,1\n"), HasSubstr("TIMESTAMP"));
  EXPECT_THAT(Refusal("t.csv", "2024-05-10 00:00:00,1\n"), HasSubstr("three fields"));
  EXPECT_THAT(Refusal("t.csv", "2024-05-10 00:00:00,x,1\n"), HasSubstr("ContextTokens"));
  EXPECT_THAT(Refusal("t.csv", "TIMESTAMP,ContextTokens,GeneratedTokens\n"),
              HasSubstr("holds no requests"));
  EXPECT_THAT(Refusal("t.txt", good), HasSubstr("--trace-format"));
  EXPECT_THAT(Trace::Load("/nowhere/t.csv", "").status().message(), HasSubstr("/nowhere/t.csv"));
  EXPECT_THAT(Trace::Load("/nowhere/t.csv", "parquet").status().message(), HasSubstr("parquet"));
}

TEST_F(TraceFile, ReadsThePublishedOnes) {
  const char* given = std::getenv("LLMD_TEST_DATA");
  const std::string at =
      (given != nullptr ? std::string(given) : testing::SourcePath("../shared/data")) + "/traces";
  if (!std::filesystem::exists(at)) GTEST_SKIP() << "the published traces are not on this machine";
  const auto mooncake = Trace::Load(at + "/mooncake_conversation.jsonl", "");
  ASSERT_TRUE(mooncake.ok()) << mooncake.status().ToString();
  EXPECT_EQ(mooncake->entries().size(), 12031u);
  for (const auto& entry : mooncake->entries()) {
    ASSERT_EQ(entry.blocks, (entry.input_tokens + 511) / 512);
  }
  const auto azure = Trace::Load(at + "/azure_llm_conv_2023.csv", "");
  ASSERT_TRUE(azure.ok()) << azure.status().ToString();
  EXPECT_EQ(azure->entries().size(), 19366u);
}

}  // namespace
}  // namespace llmd::bench
