#include "cli/run_dir.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>

namespace llmd::cli {
namespace {

// The folder that holds those of the clusters.
std::string Base() {
  const char* runtime = std::getenv("XDG_RUNTIME_DIR");
  if (runtime != nullptr && *runtime != '\0') return std::string(runtime) + "/llmd";
  return "/tmp/llmd-" + std::to_string(geteuid());
}

Status NotOurs(const std::string& path, const std::string& why) {
  return PermissionDenied("the folder " + path + " " + why +
                          ": remove it, or set XDG_RUNTIME_DIR to a folder of your own");
}

// What makes the open folder unfit, else it is closed to everybody but its owner.
Status TakeForOurselves(int fd, const std::string& path) {
  struct stat info{};
  if (fstat(fd, &info) != 0) return ErrnoStatus(errno, "cannot look at " + path);
  if (info.st_uid != geteuid()) {
    return NotOurs(path, "belongs to another user (uid " + std::to_string(info.st_uid) + ")");
  }
  if ((info.st_mode & 022) != 0) return NotOurs(path, "can be written by other users");
  if ((info.st_mode & 077) != 0 && fchmod(fd, 0700) != 0)
    return ErrnoStatus(errno, "cannot close " + path + " to others");
  return OkStatus();
}

Status Check(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) {
    if (errno == ELOOP || errno == ENOTDIR) return NotOurs(path, "is a link or no folder");
    return ErrnoStatus(errno, "cannot open " + path);
  }
  Status out = TakeForOurselves(fd, path);
  close(fd);
  return out;
}

}  // namespace

std::string RunDirectory(const std::string& cluster_name) {
  return Base() + "/" + cluster_name;
}

Status MakePrivate(const std::string& path) {
  if (mkdir(path.c_str(), 0700) != 0 && errno != EEXIST)
    return ErrnoStatus(errno, "cannot make the folder " + path);
  return Check(path);
}

Status MakeRunDirectory(const std::string& cluster_name) {
  LLMD_RETURN_IF_ERROR(MakePrivate(Base()));
  return MakePrivate(RunDirectory(cluster_name));
}

Status CheckRunDirectory() {
  std::error_code error;
  const auto status = std::filesystem::symlink_status(Base(), error);
  return std::filesystem::exists(status) ? Check(Base()) : OkStatus();
}

}  // namespace llmd::cli
