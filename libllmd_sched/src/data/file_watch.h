// Tells when a file's content was replaced: by writing, by renaming over it, or by a symlink swap
// beside it (ConfigMaps).
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <thread>

#include "llmd/status.h"

namespace llmd::sched {

// Thread-compatible. The callback runs on the watch's own thread.
class FileWatch {
 public:
  FileWatch() = default;
  ~FileWatch() { Stop(); }
  FileWatch(const FileWatch&) = delete;
  FileWatch& operator=(const FileWatch&) = delete;
  // Watches the directory of `path`; call once. `changed` runs when nothing has happened for
  // `quiet`, at the latest ten times as long after the first change.
  Status Start(const std::string& path, std::function<void()> changed,
               std::chrono::milliseconds quiet = {});
  // Joins the thread. Idempotent.
  void Stop();

 private:
  void Run(const std::function<void()>& changed, std::chrono::milliseconds quiet);
  int inotify_ = -1, stop_ = -1;
  std::thread thread_;
};

}  // namespace llmd::sched
