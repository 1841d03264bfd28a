#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <limits>

#include "llmd/kv/region.h"
#include "region_layout.h"

namespace llmd::kv {
namespace {

Status Bad(std::string what) {
  return DataLoss("peer's KV region: " + std::move(what));
}

Status CheckHeader(const RegionHeader& h, uint64_t file_bytes) {
  if (h.magic != kRegionMagic) return Bad("wrong magic");
  if (h.version != kRegionVersion) {
    return Bad("layout version " + std::to_string(h.version) + ", expected " +
               std::to_string(kRegionVersion));
  }
  if (h.header_bytes != sizeof(RegionHeader))
    return Bad("header of " + std::to_string(h.header_bytes) + " bytes");
  if (h.total_bytes != file_bytes) return Bad("header and file disagree about the size");
  if (h.num_blocks == 0 || h.num_blocks > std::numeric_limits<int32_t>::max())
    return Bad("bad num_blocks");
  if (h.block_bytes == 0 || h.block_stride < h.block_bytes || h.block_stride % kStrideAlign != 0) {
    return Bad("bad block_bytes or block_stride");
  }
  const uint64_t words_end = h.generations_offset + h.num_blocks * sizeof(GenerationWord);
  if (h.generations_offset < sizeof(RegionHeader) ||
      h.generations_offset % sizeof(GenerationWord) != 0 || h.generations_offset > file_bytes ||
      words_end > h.blocks_offset || h.blocks_offset % kStrideAlign != 0) {
    return Bad("bad generations_offset or blocks_offset");
  }
  if (h.blocks_offset > file_bytes ||
      h.num_blocks > (file_bytes - h.blocks_offset) / h.block_stride) {
    return Bad("blocks reach beyond the end");
  }
  return OkStatus();
}

Status CheckFile(int fd, uint64_t* file_bytes) {
  struct stat info{};
  if (fstat(fd, &info) != 0) return ErrnoStatus(errno, "peer's KV region: fstat");
  if (info.st_size < static_cast<off_t>(kPageBytes)) return Bad("shorter than its header page");
  // Without the seal the owner could shrink the file under our copy.
  const int seals = fcntl(fd, F_GET_SEALS);
  if (seals < 0 || (seals & F_SEAL_SHRINK) == 0) return Bad("its size is not sealed");
  *file_bytes = static_cast<uint64_t>(info.st_size);
  return OkStatus();
}

}  // namespace

struct MappedRegion::Impl {
  ~Impl() {
    if (base != MAP_FAILED) munmap(base, file_bytes);
  }
  const std::byte* at(uint64_t offset) const {
    return static_cast<const std::byte*>(base) + offset;
  }

  RegionHeader header{};
  uint64_t file_bytes = 0;
  void* base = MAP_FAILED;
};

MappedRegion::MappedRegion() : impl_(std::make_unique<Impl>()) {}
MappedRegion::~MappedRegion() = default;

StatusOr<std::unique_ptr<MappedRegion>> MappedRegion::Map(int fd) {
  std::unique_ptr<MappedRegion> region(new MappedRegion);
  Impl& impl = *region->impl_;
  LLMD_RETURN_IF_ERROR(CheckFile(fd, &impl.file_bytes));
  impl.base = mmap(nullptr, impl.file_bytes, PROT_READ, MAP_SHARED, fd, 0);
  if (impl.base == MAP_FAILED) return ErrnoStatus(errno, "peer's KV region: mmap");
  // Copied once, so that what was checked is what is used.
  std::memcpy(&impl.header, impl.base, sizeof(impl.header));
  LLMD_RETURN_IF_ERROR(CheckHeader(impl.header, impl.file_bytes));
  return region;
}

const std::byte* MappedRegion::block(int index) const {
  LLMD_CHECK(index >= 0 && static_cast<uint64_t>(index) < impl_->header.num_blocks);
  return impl_->at(impl_->header.blocks_offset +
                   static_cast<uint64_t>(index) * impl_->header.block_stride);
}
size_t MappedRegion::block_bytes() const {
  return impl_->header.block_bytes;
}
int MappedRegion::num_blocks() const {
  return static_cast<int>(impl_->header.num_blocks);
}
uint64_t MappedRegion::epoch() const {
  return impl_->header.epoch;
}

uint64_t MappedRegion::Generation(int block) const {
  LLMD_CHECK(block >= 0 && static_cast<uint64_t>(block) < impl_->header.num_blocks);
  return reinterpret_cast<const GenerationWord*>(impl_->at(impl_->header.generations_offset))[block]
      .load(std::memory_order_acquire);
}

}  // namespace llmd::kv
