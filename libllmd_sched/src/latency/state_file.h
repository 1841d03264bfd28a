// A latency model across restarts: one JSON file {"version": 1, "model": …}, replaced whole.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "latency/model.h"
#include "llmd/log.h"

namespace llmd::sched::latency {

// Writes beside `path`, flushes, renames: a reader sees the old file or the new one.
Status SaveModel(const LatencyModel& model, const std::string& path);
// NOT_FOUND without a file. INVALID_ARGUMENT names the file and what is wrong with it (not JSON,
// another version, over 2 MiB, impossible numbers); the model is as before then.
Status LoadModel(const std::string& path, LatencyModel* model);

// Saves a model every `every`, when it has learned something, and once more at its own end. In a
// thread of its own and by the machine's clock: decisions wait for no disk, and do not depend on
// it. Failures are logged.
class StateKeeper {
 public:
  StateKeeper(std::shared_ptr<const LatencyModel> model, std::string path, Logger logger,
              Duration every = std::chrono::seconds(30));
  ~StateKeeper();

 private:
  void Run();
  void SaveIfChanged();

  const std::shared_ptr<const LatencyModel> model_;
  const std::string path_;
  const Logger logger_;
  const Duration every_;
  uint64_t saved_ = 0;  // learned() at the last save; of the keeper's thread, then its destructor's
  std::mutex mutex_;
  std::condition_variable wake_;
  bool stopping_ = false;  // guarded by mutex_
  std::thread thread_;
};

}  // namespace llmd::sched::latency
