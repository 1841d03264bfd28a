// Tells when a file's content was replaced: by writing, by renaming over it, by a change of any
// symbolic link on the way to it (ConfigMaps, or a link to a file elsewhere), or by its coming to
// exist.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "llmd/status.h"

namespace llmd::sched {

// A name in a directory that decides which file a path leads to.
struct FilePlace {
  std::string directory, name;
  friend bool operator==(const FilePlace&, const FilePlace&) = default;
};
// Every place on the way, symbolic links followed, up to the file or to the first that is missing.
std::vector<FilePlace> PlacesOf(const std::string& path);

// Thread-compatible. The callback runs on the watch's own thread.
class FileWatch {
 public:
  FileWatch() = default;
  ~FileWatch() { Stop(); }
  FileWatch(const FileWatch&) = delete;
  FileWatch& operator=(const FileWatch&) = delete;
  // Watches the way to `path`, which need not exist; call once. `changed` runs when nothing has
  // happened for `quiet`, at the latest ten times as long after the first change. It may run
  // without a change of the content.
  Status Start(const std::string& path, std::function<void()> changed,
               std::chrono::milliseconds quiet = {});
  // Joins the thread. Idempotent.
  void Stop();

 private:
  void Run(const std::function<void()>& changed, std::chrono::milliseconds quiet);
  // Watches the directories of the present way, and only those. The error of the last of them.
  Status Follow();
  Status Watch(const FilePlace& place);
  // Whether one of the events at hand concerns the way.
  bool ReadEvents();

  std::string path_;
  int inotify_ = -1, stop_ = -1;
  // While running of the thread alone.
  std::vector<FilePlace> places_;
  std::map<std::string, int> watches_;             // by directory
  std::map<int, std::set<std::string>> names_of_;  // that matter, by watch
  std::thread thread_;
};

}  // namespace llmd::sched
