#include "llmd/kv/region.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>

namespace llmd::kv {
namespace {

constexpr size_t kEpochOffset = 16, kVersionOffset = 8, kNumBlocksOffset = 24, kStrideOffset = 40;

std::unique_ptr<Region> Make(int blocks, size_t bytes) {
  auto region = Region::Create({blocks, bytes, true});
  EXPECT_TRUE(region.ok()) << region.status().ToString();
  return std::move(*region);
}

// A sealed copy of a good region's file in which 8 bytes at `offset` are replaced.
int TamperedCopy(const Region& region, size_t offset, uint64_t value, int seals = F_SEAL_SHRINK) {
  const off_t size = lseek(region.fd(), 0, SEEK_END);
  std::string bytes(static_cast<size_t>(size), '\0');
  EXPECT_EQ(pread(region.fd(), bytes.data(), bytes.size(), 0), size);
  std::memcpy(bytes.data() + offset, &value, sizeof(value));
  const int fd = memfd_create("tampered", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  EXPECT_EQ(pwrite(fd, bytes.data(), bytes.size(), 0), size);
  EXPECT_EQ(fcntl(fd, F_ADD_SEALS, seals), 0);
  return fd;
}

TEST(Region, StrideIsRoundedToACacheLine) {
  auto region = Make(3, 100);
  EXPECT_EQ(region->block_bytes(), 100u);
  EXPECT_EQ(region->block_stride(), 128u);
  EXPECT_EQ(region->num_blocks(), 3);
}

TEST(Region, PeerSeesContentAndGenerations) {
  auto region = Make(4, 256);
  std::memset(region->blocks() + 2 * region->block_stride(), 0x5a, 256);
  region->Bump(2);
  auto mapped = MappedRegion::Map(region->fd());
  ASSERT_TRUE(mapped.ok()) << mapped.status().ToString();
  EXPECT_EQ((*mapped)->epoch(), region->epoch());
  EXPECT_EQ((*mapped)->num_blocks(), 4);
  EXPECT_EQ((*mapped)->block_bytes(), 256u);
  EXPECT_EQ((*mapped)->block(2)[255], std::byte{0x5a});
  EXPECT_EQ((*mapped)->Generation(2), region->Generation(2));
  EXPECT_EQ((*mapped)->Generation(1), 0u);
  region->Bump(2);
  EXPECT_EQ((*mapped)->Generation(2), region->Generation(2));
}

TEST(Region, GenerationsStayEvenAndGrow) {
  auto region = Make(1, 64);
  const uint64_t before = region->Generation(0);
  region->Bump(0);
  EXPECT_EQ(region->Generation(0), before + 2);
  EXPECT_EQ(region->Generation(0) % 2, 0u);
}

TEST(Region, EveryLifeHasItsOwnEpoch) {
  EXPECT_NE(Make(1, 64)->epoch(), Make(1, 64)->epoch());
}

TEST(Region, SizeIsSealedAndReadersCannotMapForWriting) {
  auto region = Make(1, 64);
  EXPECT_NE(ftruncate(region->fd(), 0), 0);
  EXPECT_NE(ftruncate(region->fd(), 1 << 20), 0);
  EXPECT_EQ(mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, region->fd(), 0), MAP_FAILED);
}

TEST(Region, ImpossibleSizesAreErrors) {
  EXPECT_EQ(Region::Create({0, 64, true}).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(Region::Create({1, 0, true}).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(Region::Create({1 << 30, size_t{1} << 40, true}).status().code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(Region::Create({1 << 20, size_t{1} << 40, true}).status().code(),
            StatusCode::kResourceExhausted);
}

TEST(MappedRegion, RefusesBadHeaders) {
  auto region = Make(4, 256);
  const struct {
    size_t offset;
    uint64_t value;
    const char* message;
  } cases[] = {
      {0, 1, "wrong magic"},
      {kVersionOffset, 99, "layout version 99"},
      {kVersionOffset, 1 | uint64_t{8} << 32, "header of 8 bytes"},
      {kNumBlocksOffset, 0, "bad num_blocks"},
      {kNumBlocksOffset, 1'000'000, "bad generations_offset"},
      {kNumBlocksOffset, 500, "beyond the end"},
      {kStrideOffset, 100, "block_stride"},
      {kStrideOffset, 1 << 20, "beyond the end"},
      {48, ~uint64_t{0}, "bad generations_offset"},
      {56, ~uint64_t{63}, "beyond the end"},
      {64, 12345, "disagree about the size"},
  };
  for (const auto& c : cases) {
    const int fd = TamperedCopy(*region, c.offset, c.value);
    const Status status = MappedRegion::Map(fd).status();
    close(fd);
    EXPECT_EQ(status.code(), StatusCode::kDataLoss) << c.message;
    EXPECT_NE(status.message().find(c.message), std::string::npos) << status.ToString();
  }
}

TEST(MappedRegion, RefusesFilesThatCouldShrink) {
  auto region = Make(1, 64);
  const int fd = TamperedCopy(*region, kEpochOffset, 1, F_SEAL_GROW);
  EXPECT_NE(MappedRegion::Map(fd).status().message().find("not sealed"), std::string::npos);
  close(fd);
}

TEST(MappedRegion, OutlivesItsOwner) {
  auto region = Make(1, 64);
  std::memset(region->blocks(), 7, 64);
  auto mapped = MappedRegion::Map(region->fd());
  ASSERT_TRUE(mapped.ok());
  region.reset();
  EXPECT_EQ((*mapped)->block(0)[63], std::byte{7});
}

}  // namespace
}  // namespace llmd::kv
