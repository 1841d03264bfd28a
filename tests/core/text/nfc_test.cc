#include "text/nfc.h"

#include <gtest/gtest.h>

namespace llmd::text {
namespace {

std::string InFormC(std::string_view text) {
  std::string scratch;
  return std::string(Nfc(text, scratch));
}

TEST(Nfc, LeavesNormalTextWhereItIs) {
  for (const std::string_view text : {"", "plain", "naïve café", "中文 한국어 😀", "\u0377"}) {
    std::string scratch = "kept";
    EXPECT_EQ(Nfc(text, scratch).data(), text.data()) << text;
    EXPECT_EQ(scratch, "kept");
  }
}

TEST(Nfc, JoinsMarksToTheirBase) {
  EXPECT_EQ(InFormC("e\u0301"), "\u00e9");
  EXPECT_EQ(InFormC("a\u0302\u0301!"), "\u1ea5!");         // joins twice
  EXPECT_EQ(InFormC("\u09c7\u09be"), "\u09cb");            // the second part is no ranked mark
  EXPECT_EQ(InFormC("q\u0301 \u0301"), "q\u0301 \u0301");  // no such letter
  EXPECT_EQ(InFormC("\u0301e"), "\u0301e");                // a mark without a base
}

TEST(Nfc, OrdersMarksByRankAndKeepsEqualOnes) {
  EXPECT_EQ(InFormC("q\u0301\u0323"), "q\u0323\u0301");
  EXPECT_EQ(InFormC("q\u0301\u0300"), "q\u0301\u0300");
  EXPECT_EQ(InFormC("e\u0301\u0327"), "\u0229\u0301");
}

TEST(Nfc, AnEqualMarkInBetweenBlocksTheJoin) {
  EXPECT_EQ(InFormC("q\u0302e\u0315\u0315\u0301"), "q\u0302\u00e9\u0315\u0315");
  EXPECT_EQ(InFormC("e\u030a\u0301"), "e\u030a\u0301");
  EXPECT_EQ(InFormC("\u1100\u0301\u1161"), "\u1100\u0301\u1161");
}

TEST(Nfc, ReplacesWhatStandsForAnotherCharacter) {
  EXPECT_EQ(InFormC("\u212b"), "\u00c5");
  EXPECT_EQ(InFormC("\u0958"), "\u0915\u093c");  // excluded from composition
  EXPECT_EQ(InFormC("\uf900"), "\u8c48");
}

TEST(Nfc, MakesHangulSyllables) {
  EXPECT_EQ(InFormC("\u1112\u1161\u11ab"), "\ud55c");
  EXPECT_EQ(InFormC("\ud558\u11ab"), "\ud55c");
  EXPECT_EQ(InFormC("\ud55c\u11ab"), "\ud55c\u11ab");  // has a tail already
  EXPECT_EQ(InFormC("\u1161\u11a7"), "\u1161\u11a7");
}

TEST(Nfc, ALongRunOfMarksStaysLinearithmic) {
  std::string marks, low;
  for (int i = 0; i < 200000; ++i) {
    marks += "\u0301\u0323";
    low += "\u0323";
  }
  const std::string made = InFormC("q" + marks);
  EXPECT_EQ(made.substr(0, 1 + low.size()), "q" + low);
  EXPECT_EQ(made.size(), 1 + marks.size());
}

}  // namespace
}  // namespace llmd::text
