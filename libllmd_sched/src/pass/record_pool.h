// Records of decisions that callers hold and give back by letting go of them.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "trace/record.h"

namespace llmd::sched {

// Records given out return to it, buffers and all, also after the pool's owner has gone.
// Thread-safe.
class RecordPool {
 public:
  RecordPool() : state_(std::make_shared<State>()) {}
  // An empty record.
  std::shared_ptr<DecisionRecord> Take();

 private:
  struct State {
    std::mutex mutex;
    std::vector<std::unique_ptr<DecisionRecord>> free;  // guarded by mutex
  };
  static void Return(const std::shared_ptr<State>& state, std::unique_ptr<DecisionRecord> record);
  const std::shared_ptr<State> state_;
};

}  // namespace llmd::sched
