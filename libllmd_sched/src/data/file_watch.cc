#include "data/file_watch.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <filesystem>
#include <optional>

namespace llmd::sched {

Status FileWatch::Start(const std::string& path, std::function<void()> changed,
                        std::chrono::milliseconds quiet) {
  std::string directory = std::filesystem::path(path).parent_path().string();
  if (directory.empty()) directory = ".";
  inotify_ = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
  stop_ = eventfd(0, EFD_CLOEXEC);
  // Any change in the directory re-reads: a ConfigMap swaps a symlink whose name is not the file's.
  const uint32_t mask = IN_CLOSE_WRITE | IN_MOVED_TO | IN_CREATE | IN_DELETE;
  if (inotify_ < 0 || stop_ < 0 || inotify_add_watch(inotify_, directory.c_str(), mask) < 0) {
    Status status = ErrnoStatus(errno, "cannot watch " + directory);
    Stop();
    return status;
  }
  thread_ = std::thread([this, changed = std::move(changed), quiet] { Run(changed, quiet); });
  return OkStatus();
}

void FileWatch::Run(const std::function<void()>& changed, std::chrono::milliseconds quiet) {
  pollfd fds[2] = {{inotify_, POLLIN, 0}, {stop_, POLLIN, 0}};
  using Steady = std::chrono::steady_clock;
  std::optional<Steady::time_point> first;  // change not yet told of
  while (true) {
    const int ready = poll(fds, 2, first ? static_cast<int>(quiet.count()) : -1);
    if (ready < 0 && errno == EINTR) continue;
    if (ready < 0 || fds[1].revents != 0) return;
    if (ready > 0) {
      char buffer[4096];
      while (read(inotify_, buffer, sizeof(buffer)) > 0) {
      }
      if (!first) first = Steady::now();
    }
    if (ready > 0 && Steady::now() - *first < 10 * quiet) continue;
    first.reset();
    changed();
  }
}

void FileWatch::Stop() {
  if (thread_.joinable()) {
    eventfd_write(stop_, 1);
    thread_.join();
  }
  if (inotify_ >= 0) close(inotify_);
  if (stop_ >= 0) close(stop_);
  inotify_ = stop_ = -1;
}

}  // namespace llmd::sched
