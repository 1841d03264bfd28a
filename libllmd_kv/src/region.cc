#include "llmd/kv/region.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#include <cerrno>
#include <limits>
#include <new>

#include "region_layout.h"

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

namespace llmd::kv {
namespace {

StatusOr<RegionHeader> PlanLayout(const RegionOptions& options) {
  if (options.num_blocks <= 0 || options.block_bytes == 0) {
    return InvalidArgument("KV region of " + std::to_string(options.num_blocks) + " blocks of " +
                           std::to_string(options.block_bytes) +
                           " bytes: expected at least one block and one byte");
  }
  RegionHeader header{};
  header.magic = kRegionMagic;
  header.version = kRegionVersion;
  header.header_bytes = sizeof(RegionHeader);
  header.num_blocks = static_cast<uint64_t>(options.num_blocks);
  header.block_bytes = options.block_bytes;
  header.block_stride = RoundUp(options.block_bytes, kStrideAlign);
  header.generations_offset = kPageBytes;
  header.blocks_offset =
      RoundUp(kPageBytes + header.num_blocks * sizeof(GenerationWord), kPageBytes);
  const uint64_t most = std::numeric_limits<int64_t>::max() - header.blocks_offset - kPageBytes;
  if (header.block_stride < options.block_bytes || header.block_stride > most / header.num_blocks) {
    return InvalidArgument("KV region: " + std::to_string(options.num_blocks) + " × " +
                           std::to_string(options.block_bytes) +
                           " bytes do not fit an address space");
  }
  header.total_bytes =
      RoundUp(header.blocks_offset + header.num_blocks * header.block_stride, kPageBytes);
  return header;
}

Status NoMemory(const RegionHeader& header, std::string_view what, int error) {
  return ResourceExhausted("KV region of " + std::to_string(header.total_bytes) +
                           " bytes: " + ErrnoStatus(error, what).message());
}

// memfd has no size limit of its own: a wild size would take the machine down before it failed.
Status CheckPhysicalMemory(const RegionHeader& header) {
  const uint64_t physical =
      static_cast<uint64_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  if (header.total_bytes <= physical) return OkStatus();
  return ResourceExhausted("KV region of " + std::to_string(header.total_bytes) +
                           " bytes: the machine has " + std::to_string(physical));
}

// Touching the pages by fallocate also turns a full tmpfs or cgroup into an error here instead of
// SIGBUS later.
Status Reserve(int fd, const RegionHeader& header, bool prefault) {
  if (ftruncate(fd, static_cast<off_t>(header.total_bytes)) != 0)
    return NoMemory(header, "ftruncate", errno);
  if (!prefault) return OkStatus();
  int result;
  do {
    result = fallocate(fd, 0, 0, static_cast<off_t>(header.total_bytes));
  } while (result != 0 && errno == EINTR);
  return result == 0 ? OkStatus() : NoMemory(header, "fallocate", errno);
}

}  // namespace

struct Region::Impl {
  ~Impl() {
    if (base != MAP_FAILED) munmap(base, header.total_bytes);
    if (fd >= 0) close(fd);
  }
  GenerationWord& word(int block) const {
    LLMD_CHECK(block >= 0 && static_cast<uint64_t>(block) < header.num_blocks);
    return reinterpret_cast<GenerationWord*>(static_cast<std::byte*>(base) +
                                             header.generations_offset)[block];
  }

  RegionHeader header{};
  int fd = -1;
  void* base = MAP_FAILED;
};

Region::Region() : impl_(std::make_unique<Impl>()) {}
Region::~Region() = default;

StatusOr<std::unique_ptr<Region>> Region::Create(const RegionOptions& options) {
  LLMD_ASSIGN_OR_RETURN(RegionHeader header, PlanLayout(options));
  LLMD_RETURN_IF_ERROR(CheckPhysicalMemory(header));
  if (getrandom(&header.epoch, sizeof(header.epoch), 0) != sizeof(header.epoch))
    return ErrnoStatus(errno, "getrandom");
  std::unique_ptr<Region> region(new Region);
  Impl& impl = *region->impl_;
  impl.header = header;
  impl.fd = memfd_create("llmd-kv", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (impl.fd < 0) return NoMemory(header, "memfd_create", errno);
  LLMD_RETURN_IF_ERROR(Reserve(impl.fd, header, options.prefault));
  const int populate = options.prefault ? MAP_POPULATE : 0;
  impl.base =
      mmap(nullptr, header.total_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | populate, impl.fd, 0);
  if (impl.base == MAP_FAILED) return NoMemory(header, "mmap", errno);
  new (impl.base) RegionHeader(header);
  // A sealed size means that a reader's mapping can never fault; no new writable mapping means that
  // a reader cannot write.
  if (fcntl(impl.fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) != 0)
    return ErrnoStatus(errno, "sealing the KV region");
  fcntl(impl.fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE);
  if (fcntl(impl.fd, F_ADD_SEALS, F_SEAL_SEAL) != 0)
    return ErrnoStatus(errno, "sealing the KV region");
  return region;
}

std::byte* Region::blocks() {
  return static_cast<std::byte*>(impl_->base) + impl_->header.blocks_offset;
}
size_t Region::block_stride() const {
  return impl_->header.block_stride;
}
size_t Region::block_bytes() const {
  return impl_->header.block_bytes;
}
int Region::num_blocks() const {
  return static_cast<int>(impl_->header.num_blocks);
}
int Region::fd() const {
  return impl_->fd;
}
uint64_t Region::epoch() const {
  return impl_->header.epoch;
}
uint64_t Region::Generation(int block) const {
  return impl_->word(block).load(std::memory_order_acquire);
}

void Region::Bump(int block) {
  impl_->word(block).fetch_add(2, std::memory_order_acq_rel);
  // The new owner's writes must not become visible before the new generation.
  std::atomic_thread_fence(std::memory_order_release);
}

}  // namespace llmd::kv
