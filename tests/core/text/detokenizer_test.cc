#include "llmd/text/detokenizer.h"

#include <gtest/gtest.h>

#include "core/text/made_vocabulary.h"

namespace llmd::text {
namespace {

TEST(Detokenizer, HoldsASplitEmoji) {
  const auto t = MakeTokenizer(MadeSpec()).value();
  Detokenizer d(*t, true);
  const auto ids = t->Encode("\U0001F600!", false);
  ASSERT_EQ(ids.size(), 5u);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(d.Push({&ids[i], 1}), "");
  EXPECT_EQ(d.Push({&ids[3], 1}), "\U0001F600");
  EXPECT_EQ(d.Push({&ids[4], 1}), "!");
}

TEST(Detokenizer, DropsAnUnfinishedCharacterAtTheEnd) {
  const auto t = MakeTokenizer(MadeSpec()).value();
  Detokenizer d(*t, true);
  const auto ids = t->Encode("a\U0001F600", false);
  EXPECT_EQ(d.Push(std::span(ids).first(3)), "a");
  EXPECT_EQ(d.Finish(), "");
}

TEST(Detokenizer, GivesHopelessBytesAtOnce) {
  const auto t = MakeTokenizer(MadeSpec()).value();
  Detokenizer d(*t, true);
  const TokenId lead = t->Encode("\U0001F600", false)[0], letter = t->Encode("z", false)[0];
  EXPECT_EQ(d.Push(std::vector<TokenId>{lead}), "");
  EXPECT_EQ(d.Push(std::vector<TokenId>{letter}), "\uFFFDz");
}

TEST(Detokenizer, LeavesSpecialTokensOut) {
  const auto t = MakeTokenizer(MadeSpec()).value();
  const std::vector<TokenId> ids = t->Encode("a<s>b", false);
  EXPECT_EQ(Detokenizer(*t, true).Push(ids), "ab");
  EXPECT_EQ(Detokenizer(*t, false).Push(ids), "a<s>b");
}

TEST(StopMatcher, HoldsBackOnlyWhatMayBeginAStop) {
  StopMatcher m({"END"}, false);
  EXPECT_EQ(m.Push("xyE").text, "xy");
  EXPECT_EQ(m.Push("N").text, "");
  EXPECT_EQ(m.Push("x").text, "ENx");
  EXPECT_EQ(m.Push("EN").text, "");
  EXPECT_EQ(m.Finish(), "EN");
}

TEST(StopMatcher, CutsAtTheMatch) {
  StopMatcher m({"END"}, false);
  EXPECT_EQ(m.Push("aE").text, "a");
  const auto r = m.Push("NDrest");
  EXPECT_EQ(r.text, "");
  EXPECT_EQ(r.matched, 0);
  EXPECT_EQ(m.Push("more").text, "");
}

TEST(StopMatcher, IncludesTheStopWhenAsked) {
  StopMatcher m({"END"}, true);
  EXPECT_EQ(m.Push("aENDb").text, "aEND");
}

TEST(StopMatcher, EarliestCompletionWinsThenListOrder) {
  EXPECT_EQ(StopMatcher({"abcd", "bc"}, false).Push("abcd").matched, 1);
  EXPECT_EQ(StopMatcher({"bc", "abc"}, false).Push("abc").matched, 0);
  EXPECT_EQ(StopMatcher({"abc", "bc"}, false).Push("abc").matched, 0);
  EXPECT_EQ(StopMatcher({""}, false).Push("abc").matched, -1);
}

}  // namespace
}  // namespace llmd::text
