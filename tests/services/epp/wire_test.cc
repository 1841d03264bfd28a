#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "common/wire_writer.h"
#include "llmd/proto_wire.h"
#include "support/proto_fields.h"

namespace llmd::epp {
namespace {

using services::WireWriter;

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
  EXPECT_EQ(ShownFields(f.bytes()), "1:" + std::string(2000, 'x') + " 2:300 ");
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
  EXPECT_EQ(ShownFields(bytes), "2:1 1:" + std::string(1000, 'b') + " ");
  w.Reset();
  EXPECT_EQ(w.size(), 0u);
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

}  // namespace
}  // namespace llmd::epp
