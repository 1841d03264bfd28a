#include "llmd/text/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/text/made_vocabulary.h"

namespace llmd::text {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::vector<std::string> Spelled(const Tokenizer& t, std::string_view text,
                                 bool parse_special = true) {
  std::vector<TokenId> ids;
  t.Encode(text, false, parse_special, ids);
  std::vector<std::string> out;
  for (const TokenId id : ids) out.emplace_back(t.TokenString(id));
  return out;
}

TEST(Tokenizer, MergesByRankLeftmostFirst) {
  const auto t = MakeTokenizer(MadeSpec()).value();
  EXPECT_THAT(Spelled(*t, "lower"), ElementsAre("low", "er"));
  EXPECT_THAT(Spelled(*t, "x low"), ElementsAre("x", "Ġlow"));
  EXPECT_THAT(Spelled(*t, "aaaaa"), ElementsAre("aaaa", "a"));
}

TEST(Tokenizer, LongWordsEqualShortOnes) {
  const auto t = MakeTokenizer(MadeSpec()).value();
  const auto long_run = Spelled(*t, std::string(403, 'a'));
  ASSERT_EQ(long_run.size(), 102u);
  EXPECT_EQ(long_run[99], "aaaa");
  EXPECT_EQ(long_run[100], "aa");
  EXPECT_EQ(long_run[101], "a");
}

TEST(Tokenizer, MegabyteOfOneLetterIsNotQuadratic) {
  const auto t = MakeTokenizer(MadeSpec()).value();
  EXPECT_EQ(t->Encode(std::string(1 << 20, 'a'), false).size(), size_t{1} << 18);
}

TEST(Tokenizer, OnlyQwen2TakesTextInFormC) {
  TokenizerSpec spec = MadeSpec();
  const std::vector<TokenId> apart = MakeTokenizer(spec).value()->Encode("e\u0301<s>");
  spec.pre = "qwen2";
  const auto t = MakeTokenizer(spec).value();
  EXPECT_EQ(t->Encode("e\u0301<s>"), t->Encode("\u00e9<s>"));
  EXPECT_NE(t->Encode("e\u0301<s>"), apart);
}

TEST(Tokenizer, DropsBytesWithoutToken) {
  const auto t = MakeTokenizer(MadeSpec()).value();
  EXPECT_THAT(Spelled(*t, "\x04"), ElementsAre());
  EXPECT_THAT(Spelled(*t, std::string("l\x04") + "o"),
              ElementsAre("l", "o"));  // three words: letters, other, letters
}

TEST(Tokenizer, TakesTheLongestSpecialToken) {
  const auto t = MakeTokenizer(MadeSpec()).value();
  EXPECT_THAT(Spelled(*t, "a<s>xb<s>"), ElementsAre("a", "<s>x", "b", "<s>"));
  EXPECT_THAT(Spelled(*t, "<s>", false), ElementsAre("<", "s", ">"));
  EXPECT_TRUE(t->IsSpecial(t->IdOf("<s>")));
}

TEST(Tokenizer, AddsBosAndEosAsTheModelAsks) {
  TokenizerSpec spec = MadeSpec();
  spec.bos = spec.eos = static_cast<TokenId>(spec.tokens.size()) - 2;
  spec.add_bos = spec.add_eos = true;
  const auto t = MakeTokenizer(std::move(spec)).value();
  const TokenId s = t->IdOf("<s>");
  EXPECT_THAT(t->Encode(""), ElementsAre(s, s));
  EXPECT_THAT(t->Encode("", false), ElementsAre());
}

TEST(Tokenizer, DecodesWhatItEncodes) {
  const auto t = MakeTokenizer(MadeSpec()).value();
  const std::string text = "low 中文 \U0001F600 lower<s>";
  EXPECT_EQ(t->Decode(t->Encode(text), false).value(), text);
  EXPECT_EQ(t->Decode(t->Encode(text), true).value(), text.substr(0, text.size() - 3));
  EXPECT_EQ(t->Decode(t->Encode("a\xFF"), true).value(), "a\uFFFD");
  EXPECT_EQ(t->Decode(std::vector<TokenId>{-1}, true).status().code(), StatusCode::kOutOfRange);
}

TEST(Tokenizer, KeepsAWordThatIsATokenUnderLlama3) {
  TokenizerSpec spec = MadeSpec();
  spec.pre = "llama-bpe";
  spec.tokens.push_back("xyz");
  spec.types.push_back(TokenType::kNormal);
  EXPECT_THAT(Spelled(*MakeTokenizer(spec).value(), "xyz"), ElementsAre("xyz"));
  spec.pre = "gpt-2";
  EXPECT_THAT(Spelled(*MakeTokenizer(spec).value(), "xyz"), ElementsAre("x", "y", "z"));
}

TEST(Tokenizer, RefusesBrokenSpecs) {
  TokenizerSpec spec = MadeSpec();
  spec.pre = "other";
  EXPECT_THAT(MakeTokenizer(spec).status().message(), HasSubstr("smollm"));
  spec = MadeSpec();
  spec.merges.push_back("q q");
  EXPECT_THAT(MakeTokenizer(spec).status().message(), HasSubstr("q q"));
  spec = MadeSpec();
  spec.types.pop_back();
  EXPECT_EQ(MakeTokenizer(spec).status().code(), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace llmd::text
