#include "http/characters.h"

#include <gtest/gtest.h>

#include <string>

#include "http/writer.h"
#include "llmd/http/message.h"

namespace llmd::http {
namespace {

// Every byte at every place of texts that end within and behind a word.
TEST(Characters, ControlsAreSeenWhereverTheyStand) {
  for (size_t size = 1; size <= 20; ++size) {
    for (size_t at = 0; at < size; ++at) {
      for (int byte = 0; byte < 256; ++byte) {
        std::string text(size, 'a');
        text[at] = static_cast<char>(byte);
        EXPECT_EQ(HoldsControl(text), byte < 0x20 || byte == 0x7f)
            << byte << " at " << at << " of " << size;
      }
    }
  }
  EXPECT_FALSE(HoldsControl(""));
}

TEST(Characters, ALineIsOneLineWhateverIsInIt) {
  std::string out;
  AppendLine("a\nb", std::string("one\r\ntwo\0three", 14), &out);
  EXPECT_EQ(out, "a b: one  two three\r\n");
  out.clear();
  AppendLine("x", std::string(300, 'v') + "\n\t\x80", &out);
  EXPECT_EQ(out, "x: " + std::string(300, 'v') + " \t\x80\r\n");
}

TEST(Characters, NamesAreEqualWithoutRegardToCaseOnly) {
  EXPECT_TRUE(EqualsIgnoreCase("Content-Type", "cONTENT-tYPE"));
  EXPECT_TRUE(EqualsIgnoreCase("te", "TE"));
  EXPECT_FALSE(EqualsIgnoreCase("content-type", "content-typ"));
  EXPECT_FALSE(EqualsIgnoreCase("[ontent-type", "{ontent-type"));
  EXPECT_FALSE(EqualsIgnoreCase("content-typ@", "content-typ`"));
  EXPECT_FALSE(EqualsIgnoreCase("content-type", "content-tyqe"));
}

}  // namespace
}  // namespace llmd::http
