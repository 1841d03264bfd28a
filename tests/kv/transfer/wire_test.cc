#include "transfer/wire.h"

#include <gtest/gtest.h>

#include <random>

#include "transfer/records.h"

namespace llmd::kv::wire {
namespace {

const Compatibility kCompatibility{"m", "bf16", "l", 2, 3, 64, 16, "sha256_cbor"};

StatusOr<FrameHeader> Decode(std::string_view frame) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(frame.data());
  return DecodeHeader(std::span<const uint8_t, kFrameHeaderBytes>(bytes, kFrameHeaderBytes));
}

TEST(Wire, FrameIsTheBytesOfTheDocument) {
  const std::string frame = Frame(Type::kDone, 0x01020304, "abc");
  EXPECT_EQ(frame, std::string("LKVT\x01\x07\x00\x00\x03\x00\x00\x00\x04\x03\x02\x01"
                               "abc",
                               19));
}

TEST(Wire, DoneIsTheBytesOfTheDocument) {
  EXPECT_EQ(Encode(Done{"r1"}), std::string("\x20\x00\x00\x00\x02\x00\x00\x00r1", 10));
}

TEST(Wire, RecordsComeBackAsTheyWent) {
  const auto hello = DecodeHello(Encode(Hello{"p", "d", kCompatibility}));
  ASSERT_TRUE(hello.ok());
  EXPECT_EQ(hello->engine_id, "p");
  EXPECT_EQ(hello->reader_id, "d");
  EXPECT_TRUE(CheckCompatible(kCompatibility, hello->compatibility).ok());
  const auto welcome = DecodeWelcome(Encode(Welcome{"p", ~uint64_t{0}, 5, 6, kCompatibility}));
  ASSERT_TRUE(welcome.ok());
  EXPECT_EQ(welcome->epoch, ~uint64_t{0});
  EXPECT_EQ(welcome->num_blocks, 6u);
  const auto read = DecodeRead(Encode(Read{"r", Lane::kMemfd, {1, -2, 3}}));
  ASSERT_TRUE(read.ok());
  EXPECT_EQ(read->blocks, (std::vector<int32_t>{1, -2, 3}));
  EXPECT_EQ(read->lane, Lane::kMemfd);
  const auto grant = DecodeGrant(Encode(Grant{9, {1, uint64_t{1} << 63}}));
  ASSERT_TRUE(grant.ok());
  EXPECT_EQ(grant->generations[1], uint64_t{1} << 63);
  EXPECT_EQ(*DecodeVerdict(EncodeVerdict({7, 8})), (std::vector<uint32_t>{7, 8}));
  EXPECT_EQ(DecodeError(EncodeError(Aborted("why"))), Aborted("why"));
}

TEST(Wire, BadHeadersAreTyped) {
  std::string good = Frame(Type::kHello, 1, "");
  ASSERT_TRUE(Decode(good).ok());
  const auto with = [&](size_t at, char byte) {
    std::string bad = good;
    bad[at] = byte;
    return Decode(bad).status();
  };
  EXPECT_EQ(with(0, 'G').code(), StatusCode::kDataLoss);
  EXPECT_EQ(with(4, 2).code(), StatusCode::kUnimplemented);
  EXPECT_NE(with(4, 2).message().find("version 2, this side speaks 1"), std::string::npos);
  EXPECT_EQ(with(5, 0).code(), StatusCode::kDataLoss);
  EXPECT_EQ(with(5, 77).code(), StatusCode::kDataLoss);
  EXPECT_EQ(with(11, 1).code(), StatusCode::kDataLoss) << "16 MiB of control payload";
}

TEST(Wire, EveryCutOfARecordIsAnErrorThatNamesIt) {
  const std::string whole = Encode(Hello{"p", "d", kCompatibility});
  for (size_t size = 0; size < whole.size(); ++size) {
    const auto hello = DecodeHello(whole.substr(0, size));
    ASSERT_FALSE(hello.ok()) << size;
    EXPECT_EQ(hello.status().code(), StatusCode::kDataLoss);
    EXPECT_EQ(hello.status().message().rfind("HELLO: ", 0), 0u) << hello.status().ToString();
  }
}

TEST(Wire, UnknownFieldsAreSkippedDoubledOnesAreNot) {
  RecordWriter extra;
  extra.Text(999, "from the future");
  const std::string future = extra.Take();
  EXPECT_TRUE(DecodeDone(Encode(Done{"r"}) + future).ok());
  EXPECT_NE(DecodeDone(Encode(Done{"r"}) + Encode(Done{"s"})).status().message().find("twice"),
            std::string::npos);
}

TEST(Wire, WrongSizesAreErrors) {
  RecordWriter read;
  read.Text(32, "r");
  read.Number(33, uint8_t{2});
  read.Text(34, "abc");  // not a multiple of four
  EXPECT_NE(DecodeRead(read.Take()).status().message().find("blocks has 3 bytes"),
            std::string::npos);
  RecordWriter lane;
  lane.Text(32, "r");
  lane.Number(33, uint8_t{9});
  EXPECT_NE(DecodeRead(lane.Take()).status().message().find("lane is 9"), std::string::npos);
  EXPECT_EQ(DecodeDone(Encode(Done{std::string(5000, 'x')})).status().code(),
            StatusCode::kDataLoss);
  RecordWriter error;
  error.Number(48, uint32_t{0});
  error.Text(49, "an error that says ok");
  EXPECT_EQ(DecodeError(error.Take()).code(), StatusCode::kDataLoss);
}

TEST(Wire, RandomBytesNeverDecodeToMoreThanTheyHold) {
  std::mt19937 random(3);
  for (int round = 0; round < 20'000; ++round) {
    std::string bytes =
        round % 2 == 0 ? Encode(Read{"r", Lane::kTcp, {1, 2}}) : Encode(Grant{1, {2, 3}});
    for (int flips = 0; flips < 3; ++flips)
      bytes[random() % bytes.size()] = static_cast<char>(random());
    if (const auto read = DecodeRead(bytes); read.ok())
      EXPECT_LE(read->blocks.size() * 4, bytes.size());
    if (const auto grant = DecodeGrant(bytes); grant.ok())
      EXPECT_LE(grant->generations.size() * 8, bytes.size());
  }
}

}  // namespace
}  // namespace llmd::kv::wire
