#include "data/file_watch.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <deque>
#include <filesystem>
#include <optional>

namespace llmd::sched {
namespace {

constexpr int kMaxLinks = 40;  // as the kernel
// Links may change while they are followed: then the way is looked at again.
constexpr int kMaxFollows = 10;
constexpr uint32_t kEvents = IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_CREATE | IN_DELETE |
                             IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR;

std::deque<std::string> PartsOf(const std::filesystem::path& path) {
  std::deque<std::string> out;
  for (const std::filesystem::path& part : path.relative_path()) {
    if (!part.empty() && part != ".") out.push_back(part.string());
  }
  return out;
}

}  // namespace

std::vector<FilePlace> PlacesOf(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code error;
  const fs::path whole = fs::absolute(path, error);
  std::deque<std::string> rest = PartsOf(whole);
  std::vector<FilePlace> out;
  fs::path at = "/";
  for (int links = 0; !rest.empty();) {
    const std::string name = std::move(rest.front());
    rest.pop_front();
    if (name == "..") {
      at = at.parent_path();
      continue;
    }
    out.push_back({at.string(), name});
    const fs::path there = at / name;
    const fs::file_status status = fs::symlink_status(there, error);
    if (!fs::exists(status)) break;
    if (!fs::is_symlink(status)) {
      at = there;
      continue;
    }
    const fs::path target = fs::read_symlink(there, error);
    if (error || ++links > kMaxLinks) break;
    if (target.is_absolute()) at = "/";
    const std::deque<std::string> parts = PartsOf(target);
    rest.insert(rest.begin(), parts.begin(), parts.end());
  }
  return out;
}

Status FileWatch::Start(const std::string& path, std::function<void()> changed,
                        std::chrono::milliseconds quiet) {
  path_ = std::filesystem::absolute(path).string();
  inotify_ = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
  stop_ = eventfd(0, EFD_CLOEXEC);
  Status status = inotify_ < 0 || stop_ < 0 ? ErrnoStatus(errno, "cannot watch " + path) : Follow();
  if (!status.ok()) {
    Stop();
    return status;
  }
  thread_ = std::thread([this, changed = std::move(changed), quiet] { Run(changed, quiet); });
  return OkStatus();
}

Status FileWatch::Follow() {
  Status last;
  for (int tries = 0; tries < kMaxFollows; ++tries) {
    places_ = PlacesOf(path_);
    names_of_.clear();
    std::map<std::string, int> before = std::move(watches_);
    watches_.clear();
    for (const FilePlace& place : places_) last = Watch(place);
    std::set<int> kept;
    for (const auto& [directory, watch] : watches_) kept.insert(watch);
    for (const auto& [directory, watch] : before) {
      if (!kept.contains(watch)) inotify_rm_watch(inotify_, watch);
    }
    if (PlacesOf(path_) == places_) break;
  }
  return last;
}

// The kernel gives one watch for one directory however often it is asked.
Status FileWatch::Watch(const FilePlace& place) {
  const int watch = inotify_add_watch(inotify_, place.directory.c_str(), kEvents);
  if (watch < 0) return ErrnoStatus(errno, "cannot watch " + place.directory);
  watches_[place.directory] = watch;
  names_of_[watch].insert(place.name);
  return OkStatus();
}

bool FileWatch::ReadEvents() {
  alignas(inotify_event) char buffer[16384];
  bool ours = false;
  for (ssize_t size; (size = read(inotify_, buffer, sizeof(buffer))) > 0;) {
    for (ssize_t at = 0; at < size;) {
      inotify_event event;
      std::memcpy(&event, buffer + at, sizeof(event));
      const char* const name = buffer + at + sizeof(event);
      at += static_cast<ssize_t>(sizeof(event) + event.len);
      if ((event.mask & IN_Q_OVERFLOW) != 0) ours = true;
      const auto names = names_of_.find(event.wd);
      if (names == names_of_.end()) continue;
      ours |= event.len == 0 || names->second.contains(name);
    }
  }
  return ours;
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
      if (!ReadEvents()) continue;
      // What cannot be watched now may be once something above it changes.
      (void)Follow();
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
