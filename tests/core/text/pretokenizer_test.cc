#include "text/pretokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace llmd::text {
namespace {

using testing::ElementsAre;

std::vector<std::string> Words(PreTokenizer kind, std::string_view text) {
  std::vector<std::string> words;
  const char* const end = text.data() + text.size();
  for (const char* at = text.data(); at < end;) {
    const char* const next = NextWord(kind, at, end);
    words.emplace_back(at, next);
    at = next;
  }
  return words;
}

TEST(PreTokenizer, Gpt2JoinsOneBlankToTheWord) {
  EXPECT_THAT(Words(PreTokenizer::kGpt2, "it's  123 ok!"),
              ElementsAre("it", "'s", " ", " 123", " ok", "!"));
  EXPECT_THAT(Words(PreTokenizer::kGpt2, "I'LL"), ElementsAre("I", "'", "LL"));
  EXPECT_THAT(Words(PreTokenizer::kGpt2, "a \n\n b "), ElementsAre("a", " \n\n", " b", " "));
}

TEST(PreTokenizer, SmollmTakesDigitsOneByOne) {
  EXPECT_THAT(Words(PreTokenizer::kSmollm, "a  12 b"), ElementsAre("a", "  ", "1", "2", " b"));
  EXPECT_THAT(Words(PreTokenizer::kSmollm, " \u00BD"), ElementsAre(" ", "\u00BD"));
}

TEST(PreTokenizer, Llama3GroupsThreeDigitsAndNewlines) {
  EXPECT_THAT(Words(PreTokenizer::kLlama3, "I'LL 12345"),
              ElementsAre("I", "'LL", " ", "123", "45"));
  EXPECT_THAT(Words(PreTokenizer::kLlama3, "x;\n\n  y"), ElementsAre("x", ";\n\n", " ", " y"));
  EXPECT_THAT(Words(PreTokenizer::kLlama3, "a \n  \n  b"), ElementsAre("a", " \n  \n", " ", " b"));
  EXPECT_THAT(Words(PreTokenizer::kLlama3, "\tab(cd"), ElementsAre("\tab", "(cd"));
}

TEST(PreTokenizer, Qwen2TakesSingleDigits) {
  EXPECT_THAT(Words(PreTokenizer::kQwen2, "v12"), ElementsAre("v", "1", "2"));
}

TEST(PreTokenizer, NamesAreThoseOfGguf) {
  EXPECT_EQ(PreTokenizerByName("llama-bpe"), PreTokenizer::kLlama3);
  EXPECT_EQ(PreTokenizerByName("nothing"), std::nullopt);
}

}  // namespace
}  // namespace llmd::text
