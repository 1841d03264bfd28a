#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <cerrno>

#include "index/snapshot_io.h"

namespace llmd::kv {
namespace {

constexpr uint32_t kMaxText = 1 << 16;

class File {
 public:
  explicit File(int fd) : fd_(fd) {}
  ~File() {
    if (fd_ >= 0) close(fd_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  int fd() const { return fd_; }

 private:
  const int fd_;
};

Status WriteAll(int fd, std::span<const uint8_t> bytes, const std::string& path) {
  while (!bytes.empty()) {
    const ssize_t written = write(fd, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return ErrnoStatus(errno, "write " + path);
    bytes = bytes.subspan(static_cast<size_t>(written));
  }
  return OkStatus();
}

Status ReadAll(int fd, std::span<uint8_t> bytes, const std::string& path) {
  while (!bytes.empty()) {
    const ssize_t got = read(fd, bytes.data(), bytes.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return ErrnoStatus(errno, "read " + path);
    if (got == 0) return BadSnapshot(path + " ends too early");
    bytes = bytes.subspan(static_cast<size_t>(got));
  }
  return OkStatus();
}

}  // namespace

Status BadSnapshot(std::string_view what) {
  return Status(StatusCode::kDataLoss, "index snapshot: " + std::string(what));
}

struct Checksum::State {
  XXH3_state_t xxh3;
};

Checksum::Checksum() : state_(std::make_unique<State>()) {
  XXH3_64bits_reset(&state_->xxh3);
}

Checksum::~Checksum() = default;

void Checksum::Add(const void* bytes, size_t count) {
  XXH3_64bits_update(&state_->xxh3, bytes, count);
}

uint64_t Checksum::Value() const {
  return XXH3_64bits_digest(&state_->xxh3);
}

void SnapshotWriter::Bytes(const void* bytes, size_t count) {
  checksum_.Add(bytes, count);
  const auto* from = static_cast<const uint8_t*>(bytes);
  while (count > 0) {
    const size_t part = std::min(count, buffer_.size() - used_);
    std::memcpy(buffer_.data() + used_, from, part);
    used_ += part;
    from += part;
    count -= part;
    if (used_ == buffer_.size()) Flush();
  }
}

void SnapshotWriter::Flush() {
  if (status_.ok() && used_ > 0) status_ = sink_({buffer_.data(), used_});
  used_ = 0;
}

Status SnapshotWriter::Finish() {
  Number(checksum_.Value());
  Flush();
  return status_;
}

StatusOr<uint64_t> SnapshotReader::Count(std::string_view what, uint64_t most) {
  LLMD_ASSIGN_OR_RETURN(const uint64_t count, Number<uint64_t>());
  if (count > most)
    return BadSnapshot(std::to_string(count) + " " + std::string(what) + ", expected at most " +
                       std::to_string(most));
  return count;
}

StatusOr<std::string> SnapshotReader::Text() {
  LLMD_ASSIGN_OR_RETURN(const uint32_t size, Number<uint32_t>());
  if (size > kMaxText) return BadSnapshot("a name of " + std::to_string(size) + " bytes");
  std::string text(size, '\0');
  LLMD_RETURN_IF_ERROR(Bytes(text.data(), size));
  return text;
}

Status SnapshotReader::Bytes(void* bytes, size_t count) {
  LLMD_RETURN_IF_ERROR(source_({static_cast<uint8_t*>(bytes), count}));
  checksum_.Add(bytes, count);
  return OkStatus();
}

Status SnapshotReader::CheckEnd() {
  const uint64_t computed = checksum_.Value();
  LLMD_ASSIGN_OR_RETURN(const uint64_t written, Number<uint64_t>());
  return computed == written ? OkStatus() : BadSnapshot("its checksum is wrong");
}

Status SaveIndex(const Index& index, const std::string& path) {
  const std::string part = path + ".part";
  const File file(open(part.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (file.fd() < 0) return ErrnoStatus(errno, "open " + part);
  Status status =
      index.Save([&](std::span<const uint8_t> bytes) { return WriteAll(file.fd(), bytes, part); });
  if (status.ok() && fsync(file.fd()) != 0) status = ErrnoStatus(errno, "fsync " + part);
  if (status.ok() && rename(part.c_str(), path.c_str()) != 0)
    status = ErrnoStatus(errno, "rename " + part + " to " + path);
  if (!status.ok()) unlink(part.c_str());
  return status;
}

Status RestoreIndex(Index& index, const std::string& path) {
  const File file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.fd() < 0) return ErrnoStatus(errno, "open " + path);
  // Numbers are small: through a buffer.
  std::vector<uint8_t> buffer(1 << 16);
  size_t at = 0, have = 0;
  const auto source = [&](std::span<uint8_t> into) -> Status {
    while (!into.empty()) {
      if (at == have && into.size() >= buffer.size()) return ReadAll(file.fd(), into, path);
      if (at == have) {
        const ssize_t got = read(file.fd(), buffer.data(), buffer.size());
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return ErrnoStatus(errno, "read " + path);
        if (got == 0) return BadSnapshot(path + " ends too early");
        at = 0;
        have = static_cast<size_t>(got);
      }
      const size_t part = std::min(into.size(), have - at);
      std::memcpy(into.data(), buffer.data() + at, part);
      at += part;
      into = into.subspan(part);
    }
    return OkStatus();
  };
  return index.Restore(source);
}

}  // namespace llmd::kv
