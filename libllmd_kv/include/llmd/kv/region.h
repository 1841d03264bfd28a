// A KV pool that other processes can read: one memfd with a header page, a generation word per
// block and the blocks. The engine writes blocks in place; a reader on the same host maps the fd
// and copies; the generation word is the fence that tells it whether the block was given away
// meanwhile.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "llmd/status.h"

namespace llmd::kv {

struct RegionOptions {
  int num_blocks = 0;
  size_t block_bytes = 0;  // payload of one block; the stride is rounded up to 64
  bool prefault = true;    // touch every page now, not in the first requests
};

// The owner's view. Thread rule: the engine thread allocates and writes; Generation() may be read
// by any thread.
class Region {
 public:
  // RESOURCE_EXHAUSTED when the memory is not to be had.
  static StatusOr<std::unique_ptr<Region>> Create(const RegionOptions& options);
  ~Region();

  std::byte* blocks();  // first block
  size_t block_stride() const;
  size_t block_bytes() const;
  int num_blocks() const;
  int fd() const;
  uint64_t epoch() const;  // random, one per life of the region

  // The block's generation: even = stable. Bumped (release) each time the block is handed to a new
  // owner, *before* its content may change.
  uint64_t Generation(int block) const;
  void Bump(int block);

 private:
  Region();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// A peer's region mapped read-only from its fd; layout is checked against the header. DATA_LOSS on
// a bad header.
class MappedRegion {
 public:
  static StatusOr<std::unique_ptr<MappedRegion>> Map(int fd);
  ~MappedRegion();
  const std::byte* block(int index) const;
  size_t block_bytes() const;
  int num_blocks() const;
  uint64_t epoch() const;
  uint64_t Generation(int block) const;  // acquire

 private:
  MappedRegion();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace llmd::kv
