#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "epp/wire_reader.h"
#include "epp/wire_writer.h"

namespace llmd::epp {
namespace {

// "field:value " of every field, as each of the two readers sees it.
std::string Shown(std::string_view bytes) {
  std::string out;
  WireFields f(bytes);
  while (f.Next()) {
    out += std::to_string(f.field()) + ":" +
           (f.type() == WireType::kVarint ? std::to_string(f.number()) : std::string(f.bytes())) +
           " ";
  }
  return f.ok() ? out : out + "malformed";
}

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

TEST(WireWriter, WritesBackToFrontWhatTheReaderReads) {
  WireWriter w;
  w.Bytes(7, "last");
  const size_t nested = w.size();
  w.Number(2, 300);
  w.Bytes(1, std::string(2000, 'x'));
  w.Wrap(5, nested);
  w.Number(1, ~uint64_t{0});
  const std::string bytes(w.View());
  EXPECT_EQ(bytes.size(), w.size());
  WireFields f(bytes);
  ASSERT_TRUE(f.Next());
  EXPECT_EQ(f.number(), ~uint64_t{0});
  ASSERT_TRUE(f.Next() && f.Is(5));
  EXPECT_EQ(Shown(f.bytes()), "1:" + std::string(2000, 'x') + " 2:300 ");
  ASSERT_TRUE(f.Next() && f.Is(7));
  EXPECT_EQ(f.bytes(), "last");
  EXPECT_FALSE(f.Next());
  EXPECT_TRUE(f.ok());
}

TEST(WireWriter, CountsATailItDoesNotHold) {
  WireWriter w;
  w.Tail(1000);
  w.Wrap(1, 0);
  w.Number(2, 1);
  const std::string bytes = std::string(w.View()) + std::string(1000, 'b');
  EXPECT_EQ(w.size(), bytes.size());
  EXPECT_EQ(Shown(bytes), "2:1 1:" + std::string(1000, 'b') + " ");
  w.Reset();
  EXPECT_EQ(w.size(), 0u);
}

TEST(WireReader, BothReadersAgreeOnRandomBytes) {
  std::mt19937 rng(11);
  for (int round = 0; round < 20'000; ++round) {
    std::string bytes(rng() % 40, '\0');
    // Small values make fields that fit more often.
    for (char& c : bytes) c = static_cast<char>(rng() % 4 == 0 ? rng() : rng() % 24);
    const std::string whole = Shown(bytes);
    for (const size_t step : {1, 3, 50}) ASSERT_EQ(ShownInPieces(bytes, step), whole);
  }
}

TEST(PieceFields, WalksIntoAFieldAndOutAgain) {
  WireWriter w;
  w.Number(3, 9);
  const size_t body = w.size();
  w.Number(2, 1);
  w.Bytes(1, "0123456789");
  w.Wrap(4, body);
  const std::string bytes(w.View());
  const std::vector<std::string_view> pieces = {std::string_view(bytes).substr(0, 8),
                                                std::string_view(bytes).substr(8)};
  PieceFields f(pieces);
  ASSERT_TRUE(f.Next());
  f.Enter();
  ASSERT_TRUE(f.Next());
  EXPECT_EQ(f.left(), 10u);
  std::string parts;
  for (std::string_view part; !(part = f.TakePart()).empty();) parts += std::string(part) + "|";
  EXPECT_EQ(parts, "0123|456789|");
  ASSERT_TRUE(f.Next());
  EXPECT_EQ(f.number(), 1u);
  EXPECT_FALSE(f.Next());
  f.Leave();
  ASSERT_TRUE(f.Next());
  EXPECT_EQ(f.field(), 3u);
  EXPECT_FALSE(f.Next());
  EXPECT_TRUE(f.ok());
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
}  // namespace llmd::epp
