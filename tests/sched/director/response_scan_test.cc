#include "director/response_scan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
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

TEST(UsageScanner, AKeyThatAlmostIsOneHidesNone) {
  const std::string text =
      R"(""usage" "usage"x{} "usag"usage":{"a":1},"usage":1,"usage":{}"usage":{"b":2})";
  for (size_t piece = 1; piece <= text.size(); ++piece)
    EXPECT_THAT(Usages(text, piece), ElementsAre(R"({"a":1})", "{}", R"({"b":2})")) << piece;
}

TEST(UsageScanner, GivesUpOnEndlessObjects) {
  EXPECT_TRUE(Usages("\"usage\":{" + std::string(200'000, '{'), 1000).empty());
}

// What comes of `text`, the same for every size of pieces.
std::string Restored(const std::string& text, const std::string& from = "big",
                     const std::string& to = "mine") {
  std::string first;
  for (size_t piece = 1; piece <= text.size(); ++piece) {
    ModelRestorer restorer(from, to);
    std::string out;
    for (size_t i = 0; i < text.size(); i += piece) {
      out += restorer.Feed(std::string_view(text).substr(i, piece), i + piece >= text.size());
    }
    if (piece == 1) first = out;
    EXPECT_EQ(out, first) << piece;
  }
  return first;
}

TEST(ModelRestorer, ReplacesTheNameAndLeavesTheRest) {
  EXPECT_EQ(Restored(R"({"model":"big","a":"model","model": "big","model":"bigger","n":"big"})"),
            R"({"model":"mine","a":"model","model": "mine","model":"bigger","n":"big"})");
  EXPECT_EQ(Restored("{\"model\" : \"big\"}"), "{\"model\" : \"mine\"}");
  EXPECT_EQ(Restored("{\n  \"id\": \"x\",\n\n  \"model\"\t:\r\n\"big\"\n}"),
            "{\n  \"id\": \"x\",\n\n  \"model\"\t:\r\n\"mine\"\n}");
  EXPECT_EQ(Restored("\xEF\xBB\xBF {\"model\":\"big\"}"), "\xEF\xBB\xBF {\"model\":\"mine\"}");
}

TEST(ModelRestorer, KnowsTheNameHoweverItIsEscaped) {
  EXPECT_EQ(Restored(R"({"model":"org\/x"})", "org/x", "m"), R"({"model":"m"})");
  EXPECT_EQ(Restored(R"({"model":"\u00fcber \ud83d\ude00"})",
                     "\xC3\xBC"
                     "ber \xF0\x9F\x98\x80",
                     "m"),
            R"({"model":"m"})");
  EXPECT_EQ(Restored(R"({"model":"\u0062\u0069\u0067"})"), R"({"model":"mine"})");
  EXPECT_EQ(Restored(R"({"mod\u0065l":"big"})"), R"({"mod\u0065l":"mine"})");
  EXPECT_EQ(Restored(R"({"model":"a\\"})", "a\\", "q\"q"), R"({"model":"q\"q"})");
  EXPECT_EQ(Restored(R"({"model":"a\"b","x":1})", "a\"b", "m"), R"({"model":"m","x":1})");
}

TEST(ModelRestorer, TouchesOnlyWhereAnAnswerNamesItsModel) {
  for (
      const char* text :
      {R"({"output":[{"type":"tool_use","input":{"model":"big"}}]})",
       R"({"message":[{"model":"big"}],"response":"big","x":{"message":{"model":"big"}}})",
       R"({"message":{"content":[{"model":"big"}],"input":{"model":"big"}}})",
       R"({"choices":[{"message":{"model":"big","tool_calls":[{"arguments":"{\"model\":\"big\"}"}]}}]})",
       R"({"a":"\"model\":\"big\"","b":["model","big"],"c":{"model":"big"},"big":"model"})",
       R"([{"model":"big"}])", R"("model":"big")", R"({"model":["big"],"models":"big"})"}) {
    EXPECT_EQ(Restored(text), text);
  }
  EXPECT_EQ(
      Restored(R"({"input":{"model":"big"},"message":{"c":[{}],"model":"big"},"model":"big"})"),
      R"({"input":{"model":"big"},"message":{"c":[{}],"model":"mine"},"model":"mine"})");
  EXPECT_EQ(Restored(R"({"response" : {"model": "big","x":{"model":"big"}}})"),
            R"({"response" : {"model": "mine","x":{"model":"big"}}})");
  EXPECT_EQ(Restored("{\"model\":\"big\"}\n{\"model\":\"big\"}\n"),
            "{\"model\":\"mine\"}\n{\"model\":\"mine\"}\n");
}

TEST(ModelRestorer, ReadsEventStreams) {
  for (const std::string end : {"\n", "\r\n", "\r"}) {
    const auto stream = [&](const std::string& name) {
      return ": don't \"stop {" + end + end + "event: message_start" + end +
             R"(data: {"type":"message_start","message":{"model":")" + name + R"("}})" + end + end +
             R"(data: {"model":")" + name +
             R"(","choices":[{"delta":{"content":"{\"model\":"}}]})" + end + end + "data: {" + end +
             "data: \"model\" :\"" + name + "\"}" + end + end + "data:{\"cut" + end + end +
             "id: {\"model\":\"big\"}" + end + end + "data: [DONE]" + end + end;
    };
    EXPECT_EQ(Restored(stream("big")), stream("mine"));
  }
}

TEST(ModelRestorer, AnUnfinishedEventDoesNotSpoilTheNext) {
  EXPECT_EQ(Restored("data: {\"a\":[1\n\ndata: {\"model\":\"big\"}\n\n"),
            "data: {\"a\":[1\n\ndata: {\"model\":\"mine\"}\n\n");
  EXPECT_EQ(Restored("data: {\"a\":\"te\n\ndata: {\"model\":\"big\"}\n\n"),
            "data: {\"a\":\"te\n\ndata: {\"model\":\"mine\"}\n\n");
}

TEST(ModelRestorer, HoldsNoMoreThanANameAndNothingAtTheEnd) {
  ModelRestorer restorer("big", "mine");
  EXPECT_EQ(restorer.Feed(R"({"model":"bi)", false), R"({"model":)");
  EXPECT_EQ(restorer.Feed("", true), R"("bi)");
  ModelRestorer other("big", "mine");
  const std::string longer(1000, 'x');
  EXPECT_EQ(other.Feed("{\"model\":\"" + longer, false), "{\"model\":\"" + longer);
  EXPECT_EQ(other.Feed("\",\"model\":\"big\"", false), "\",\"model\":\"mine\"");
}

TEST(ModelRestorer, PassesAnyBytesOnWhole) {
  std::mt19937 random(7);
  const std::string alphabet = "{}[]\":,\\ \n\rdata:modelbigu0062";
  for (int round = 0; round < 2000; ++round) {
    std::string text;
    for (int i = 0; i < 60; ++i) text += alphabet[random() % alphabet.size()];
    ModelRestorer restorer("big", "big");
    std::string out;
    for (size_t at = 0; at < text.size();) {
      const size_t size = 1 + random() % 9;
      out += restorer.Feed(std::string_view(text).substr(at, size), at + size >= text.size());
      at += size;
    }
    if (text.find("0062") == std::string::npos) EXPECT_EQ(out, text);
  }
}

}  // namespace
}  // namespace llmd::sched
