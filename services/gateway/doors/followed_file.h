// A file that is read again when it changes: a good one replaces what was, a bad one changes
// nothing and is told.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "gateway/doors/door_metrics.h"
#include "llmd/log.h"
#include "llmd/status.h"

namespace llmd::sched {
class FileWatch;
}

namespace llmd::doors {

// Thread-safe. `load` is never called by two threads at a time, and not after Stop.
class FollowedFile {
 public:
  // `kind` names it in logs and metrics. `metrics` outlives this.
  FollowedFile(std::string kind, std::string path, std::function<Status()> load, Logger logger,
               DoorMetrics& metrics);
  ~FollowedFile();

  // Reads it for the first time and follows it from then on. An error is that of the first read.
  Status Start();
  // Reads it now, as a change does.
  Status Reload();
  void Stop();

 private:
  const std::string kind_, path_;
  const std::function<Status()> load_;
  const Logger logger_;
  DoorMetrics& metrics_;
  std::mutex mutex_;  // held while `load` runs
  std::unique_ptr<sched::FileWatch> watch_;
};

// The secret of --engine-api-key-file as the value of Authorization, "Bearer …". The file holds one
// line of 1 to 4096 bytes of printable ASCII without blanks.
StatusOr<std::string> ReadEngineKey(const std::string& path);

}  // namespace llmd::doors
