// Tells when a file's content was replaced: by writing, by renaming over it, or by a symlink swap
// beside it (ConfigMaps).
#pragma once

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
  // Watches the directory of `path`; call once.
  Status Start(const std::string& path, std::function<void()> changed);
  // Joins the thread. Idempotent.
  void Stop();

 private:
  void Run(const std::function<void()>& changed);
  int inotify_ = -1, stop_ = -1;
  std::thread thread_;
};

}  // namespace llmd::sched
