#include "llmd/uuid.h"

#include <gtest/gtest.h>

#include <regex>
#include <set>

namespace llmd {
namespace {

TEST(Uuid, IsOfVersionFourAndNew) {
  const std::regex shape("[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}");
  std::set<std::string> seen;
  for (int i = 0; i < 200; ++i) {
    const std::string uuid = NewUuid();
    EXPECT_TRUE(std::regex_match(uuid, shape)) << uuid;
    EXPECT_TRUE(seen.insert(uuid).second);
  }
}

TEST(Uuid, KeepsTheGivenBits) {
  EXPECT_EQ(UuidFromBits(0, 0), "00000000-0000-4000-8000-000000000000");
  EXPECT_EQ(UuidFromBits(~uint64_t{0}, ~uint64_t{0}), "ffffffff-ffff-4fff-bfff-ffffffffffff");
  EXPECT_EQ(UuidFromBits(0x0123456789abcdef, 0x1122334455667788),
            "01234567-89ab-4def-9122-334455667788");
}

TEST(RandomBits, Differ) {
  EXPECT_NE(RandomBits(), RandomBits());
}

}  // namespace
}  // namespace llmd
