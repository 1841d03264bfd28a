#include "text/unicode.h"

#include <gtest/gtest.h>

namespace llmd::text {
namespace {

std::string Lossy(std::string_view bytes) {
  std::string out;
  AppendLossy(out, bytes);
  return out;
}

TEST(Unicode, ClassesFollowGeneralCategories) {
  EXPECT_EQ(ClassOf('a'), CharClass::kLetter);
  EXPECT_EQ(ClassOf(0x4E2D), CharClass::kLetter);
  EXPECT_EQ(ClassOf(0x0301), CharClass::kOther);   // combining acute
  EXPECT_EQ(ClassOf(0x00BD), CharClass::kNumber);  // one half
  EXPECT_EQ(ClassOf(0x0665), CharClass::kNumber);  // Arabic-Indic five
  EXPECT_EQ(ClassOf(0x3000), CharClass::kSpace);
  EXPECT_EQ(ClassOf(0x200B), CharClass::kOther);  // zero-width space is no White_Space
  EXPECT_EQ(ClassOf(0x1F600), CharClass::kOther);
  EXPECT_EQ(ClassOf(0x10FFFF), CharClass::kOther);
  EXPECT_EQ(ClassOf(0x110000), CharClass::kOther);
}

TEST(Unicode, ReplacesMaximalSubparts) {
  EXPECT_EQ(Lossy("a\xFFz"), "a\uFFFDz");
  EXPECT_EQ(Lossy("\xE4\xB8z"), "\uFFFDz");                // one for a truncated sequence
  EXPECT_EQ(Lossy("\xED\xA0\x80"), "\uFFFD\uFFFD\uFFFD");  // a surrogate: one a byte
  EXPECT_EQ(Lossy("\xF0\x9F\x98\x80"), "\U0001F600");
}

TEST(Unicode, FindsTheUnfinishedEnd) {
  EXPECT_EQ(OpenSequenceStart("ab\xF0\x9F\x98"), 2u);
  EXPECT_EQ(OpenSequenceStart("ab\xE4"), 2u);
  EXPECT_EQ(OpenSequenceStart("ab\xFF"), 3u);
  EXPECT_EQ(OpenSequenceStart("ab"), 2u);
  EXPECT_EQ(OpenSequenceStart("\x80\x80\x80\x80"), 4u);
  EXPECT_EQ(OpenSequenceStart(""), 0u);
}

TEST(Unicode, ValidatesLongText) {
  std::string text(1000, 'x');
  EXPECT_TRUE(IsValidUtf8(text));
  text[777] = '\xC0';
  EXPECT_FALSE(IsValidUtf8(text));
}

}  // namespace
}  // namespace llmd::text
