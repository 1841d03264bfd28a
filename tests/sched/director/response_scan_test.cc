#include "director/response_scan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

namespace llmd::sched {
namespace {

using ::testing::ElementsAre;

std::vector<std::string> Usages(const std::string& text, size_t piece) {
  UsageScanner scanner;
  std::vector<std::string> out;
  for (size_t i = 0; i < text.size(); i += piece) {
    scanner.Feed(std::string_view(text).substr(i, piece),
                 [&](std::string_view o) { out.emplace_back(o); });
  }
  return out;
}

TEST(UsageScanner, FindsObjectsAcrossEverySplit) {
  const std::string text =
      "data: {\"usage\": null, \"x\":\"\\\"usage\\\":{}\"}\n\ndata: {\"usage\" : "
      "{\"a\":{\"b\":\"}\\\"\"}}}\n\ndata: [DONE]\n\n";
  for (size_t piece = 1; piece <= text.size(); ++piece) {
    EXPECT_THAT(Usages(text, piece), ElementsAre(R"({"a":{"b":"}\""}})")) << piece;
  }
}

TEST(UsageScanner, GivesUpOnEndlessObjects) {
  EXPECT_TRUE(Usages("\"usage\":{" + std::string(200'000, '{'), 1000).empty());
}

TEST(ModelRestorer, ReplacesAcrossEverySplitAndLeavesTheRest) {
  const std::string text =
      R"({"model":"big","a":"model","model": "big","model":"bigger","n":"big"})";
  const std::string want =
      R"({"model":"mine","a":"model","model": "mine","model":"bigger","n":"big"})";
  for (size_t piece = 1; piece <= text.size(); ++piece) {
    ModelRestorer restorer("big", "mine");
    std::string out;
    for (size_t i = 0; i < text.size(); i += piece) {
      out += restorer.Feed(std::string_view(text).substr(i, piece), i + piece >= text.size());
    }
    EXPECT_EQ(out, want) << piece;
  }
}

TEST(ModelRestorer, HoldsNothingBackAtTheEnd) {
  ModelRestorer restorer("big", "mine");
  EXPECT_EQ(restorer.Feed(R"(x"model":"bi)", false), "x");
  EXPECT_EQ(restorer.Feed("", true), R"("model":"bi)");
}

}  // namespace
}  // namespace llmd::sched
