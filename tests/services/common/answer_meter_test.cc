#include "common/answer_meter.h"

#include <gtest/gtest.h>

#include <string>

#include "common/body_model.h"

namespace llmd::services {
namespace {

struct Counts {
  int64_t prompt, completion;
  bool estimated;
  friend bool operator==(const Counts&, const Counts&) = default;
};

Counts Read(std::string_view answer, bool events, size_t piece_bytes) {
  AnswerMeter meter;
  meter.Begin(events, false);
  for (; !answer.empty(); answer.remove_prefix(std::min(piece_bytes, answer.size())))
    meter.Take(answer.substr(0, piece_bytes));
  return {meter.prompt_tokens(), meter.completion_tokens(), meter.estimated()};
}

// Whatever the borders of the pieces.
void ExpectCounts(std::string_view answer, bool events, const Counts& expected) {
  for (size_t bytes = 1; bytes <= answer.size(); ++bytes)
    EXPECT_EQ(Read(answer, events, bytes), expected) << answer << " in pieces of " << bytes;
}

TEST(AnswerMeter, ReadsTheUsageOfAWholeAnswer) {
  ExpectCounts(
      R"({"choices":[{"text":"\"usage\": {"}],"usage" : {"prompt_tokens_details":{"cached_tokens":9},)"
      R"("prompt_tokens":3,"total_tokens":8,"completion_tokens": 5}})",
      false, {3, 5, false});
}

TEST(AnswerMeter, TakesTheLastUsageOfAStream) {
  ExpectCounts(
      "data: {\"usage\":null}\n\ndata: "
      "{\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":1}}\n\n"
      "data: {\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}\n\ndata: [DONE]\n\n",
      true, {3, 2, false});
}

TEST(AnswerMeter, PutsTheTwoHalvesOfAnthropicTogether) {
  ExpectCounts(
      "event: message_start\ndata: "
      "{\"message\":{\"usage\":{\"input_tokens\":7,\"output_tokens\":1}}}\n\n"
      "event: message_delta\ndata: {\"usage\":{\"output_tokens\":12}}\n\n",
      true, {7, 12, false});
}

TEST(AnswerMeter, CountsTheEventsOfAStreamWithoutUsage) {
  ExpectCounts(
      ": hello\n\ndata: {\"a\":1}\n\nevent: x\ndata:{\"data: \":2}\n\nid: 7\n\ndata: [DONE]\n\n",
      true, {-1, 2, true});
}

TEST(AnswerMeter, EstimatesNothingOfAnswersThatAreNoStream) {
  ExpectCounts(R"({"usages":{"prompt_tokens":1},"data":[]})", false, {-1, -1, false});
}

TEST(AnswerMeter, DoesNotReadEncodedAnswers) {
  AnswerMeter meter;
  meter.Begin(true, true);
  meter.Take("data: {\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":1}}\n\n");
  EXPECT_EQ(meter.prompt_tokens(), -1);
  EXPECT_EQ(meter.completion_tokens(), -1);
  EXPECT_FALSE(meter.estimated());
}

TEST(AnswerMeter, AUsageThatIsCutSaysNothing) {
  EXPECT_EQ(Read(R"({"usage":{"completion_tokens":4,"prompt_tokens":12)", false, 1000),
            (Counts{-1, -1, false}));
}

TEST(AnswerMeter, IsBoundedWhateverAUsageHolds) {
  const std::string answer = R"({"usage":{"prompt_tokens":3,"x":")" + std::string(100'000, 'y') +
                             R"("},"usage":{"completion_tokens":4}})";
  EXPECT_EQ(Read(answer, false, 1000), (Counts{3, 4, false}));
}

TEST(BodyModel, IsTheLastTopLevelOne) {
  const auto model = [](std::string_view body) {
    std::string out = "before";
    ReadModel(body, out);
    return out;
  };
  EXPECT_EQ(model(R"({"model":"a","x":{"model":"b"},"model":"c\n"})"), "c\n");
  EXPECT_EQ(model(R"({"\u006dodel":"esc"})"), "esc");
  EXPECT_EQ(model(R"({"model":7})"), "");
  EXPECT_EQ(model(R"([{"model":"a"}])"), "");
  EXPECT_EQ(model(R"({"model":"a")"), "");
}

}  // namespace
}  // namespace llmd::services
