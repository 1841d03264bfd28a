// The bytes of a region: what a mapping peer finds at which offset (docs/wire/transfer.md,
// "Region").
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace llmd::kv {

inline constexpr uint64_t kRegionMagic = 0x3130564b444d4c4c;  // "LLMDKV01"
inline constexpr uint32_t kRegionVersion = 1;
inline constexpr size_t kPageBytes = 4096;
inline constexpr size_t kStrideAlign = 64;

struct RegionHeader {
  uint64_t magic;
  uint32_t version;
  uint32_t header_bytes;
  uint64_t epoch;
  uint64_t num_blocks;
  uint64_t block_bytes;
  uint64_t block_stride;
  uint64_t generations_offset;  // num_blocks words of 8 bytes
  uint64_t blocks_offset;
  uint64_t total_bytes;
};
static_assert(sizeof(RegionHeader) == 72);
using GenerationWord = std::atomic<uint64_t>;
static_assert(sizeof(GenerationWord) == 8 && GenerationWord::is_always_lock_free);

constexpr uint64_t RoundUp(uint64_t value, uint64_t to) {
  return (value + to - 1) / to * to;
}

}  // namespace llmd::kv
