#include "llmd/proto_wire.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "support/proto_fields.h"

namespace llmd {
namespace {

using ::testing::ElementsAre;

// The same as PieceFields sees it, from pieces of `step` bytes.
std::string ShownInPieces(std::string_view bytes, size_t step) {
  std::vector<std::string_view> pieces;
  for (size_t at = 0; at < bytes.size(); at += step) pieces.push_back(bytes.substr(at, step));
  std::string out, scratch;
  PieceFields f(pieces);
  while (f.Next()) {
    out += std::to_string(f.field()) + ":" +
           (f.type() == WireType::kVarint ? std::to_string(f.number())
                                          : std::string(f.TakeAll(scratch))) +
           " ";
  }
  return f.ok() ? out : out + "malformed";
}

TEST(WireFields, WalksEveryWireType) {
  const std::string fixed64("\x11\x01\x00\x00\x00\x00\x00\x00\x80", 9);
  const std::string fixed32("\x25\x02\x00\x00\x00", 5);
  const std::string all = "\x08\xac\x02" + fixed64 + "\x1a\x03" + "abc" + fixed32;
  WireFields f(all);
  ASSERT_TRUE(f.Next());
  EXPECT_TRUE(f.IsNumber(1));
  EXPECT_EQ(f.number(), 300u);
  ASSERT_TRUE(f.Next());
  EXPECT_EQ(f.type(), WireType::kFixed64);
  EXPECT_EQ(f.bytes(), fixed64.substr(1));
  ASSERT_TRUE(f.Next());
  EXPECT_TRUE(f.Is(3) && !f.Is(2) && !f.IsNumber(3));
  EXPECT_EQ(f.bytes(), "abc");
  EXPECT_EQ(all.substr(f.length().begin, f.length().size()), "\3");
  ASSERT_TRUE(f.Next());
  EXPECT_EQ(f.field(), 4u);
  EXPECT_EQ(f.type(), WireType::kFixed32);
  EXPECT_EQ(f.bytes(), fixed32.substr(1));
  EXPECT_FALSE(f.Next());
  EXPECT_TRUE(f.ok());
}

TEST(WireFields, StopsAtWhatIsNoMessage) {
  for (const std::string& bad :
       {std::string("\x1a\x03"
                    "ab"),
        std::string("\x0b"), std::string("\x00\x01", 2), std::string("\x08"),
        std::string("\x09\x01"), std::string("\x25\x01"), std::string(11, '\xff'),
        std::string("\x1a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")}) {
    WireFields f(bad);
    while (f.Next()) {
    }
    EXPECT_FALSE(f.ok()) << testing::PrintToString(bad);
    EXPECT_FALSE(f.Next());
  }
}

TEST(WireFields, VarintsGoThereAndBack) {
  for (uint64_t v : {uint64_t{0}, uint64_t{127}, uint64_t{128}, uint64_t{1} << 35, ~uint64_t{0}}) {
    std::vector<uint64_t> seen;
    EXPECT_TRUE(WireFields::Packed(ToVarint(v), [&](uint64_t x) { seen.push_back(x); }));
    EXPECT_THAT(seen, ElementsAre(v));
  }
  EXPECT_FALSE(WireFields::Packed("\x80", [](uint64_t) {}));
}

TEST(PieceFields, BothReadersAgreeOnRandomBytes) {
  std::mt19937 rng(11);
  for (int round = 0; round < 20'000; ++round) {
    std::string bytes(rng() % 40, '\0');
    // Small values make fields that fit more often.
    for (char& c : bytes) c = static_cast<char>(rng() % 4 == 0 ? rng() : rng() % 24);
    const std::string whole = ShownFields(bytes);
    for (const size_t step : {1, 3, 50}) ASSERT_EQ(ShownInPieces(bytes, step), whole);
  }
}

TEST(PieceFields, ANestedValueThatOverrunsIsMalformed) {
  // Field 4 of 3 bytes holds field 1 that claims 9.
  const std::string bytes =
      "\x22\x03\x0a\x09x"
      "0123456789";
  const std::vector<std::string_view> pieces = {bytes};
  PieceFields f(pieces);
  ASSERT_TRUE(f.Next());
  f.Enter();
  EXPECT_FALSE(f.Next());
  EXPECT_FALSE(f.ok());
}

}  // namespace
}  // namespace llmd
