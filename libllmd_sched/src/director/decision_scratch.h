// What a decision is written into: buffers that a thread keeps from one decision to the next. A
// hook may route or end other requests, so that decisions nest: each has its own.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "llmd/sched/profile_handler.h"
#include "trace/record.h"

namespace llmd::sched {

// Lends the buffers of this thread until it goes; on the thread it was made on.
class DecisionScratch {
 public:
  DecisionScratch() {
    std::vector<std::unique_ptr<Buffers>>& free = Free();
    if (free.empty()) {
      lent_ = std::make_unique<Buffers>();
    } else {
      lent_ = std::move(free.back());
      free.pop_back();
    }
    lent_->record.Reset();
  }
  ~DecisionScratch() { Free().push_back(std::move(lent_)); }
  DecisionScratch(const DecisionScratch&) = delete;
  DecisionScratch& operator=(const DecisionScratch&) = delete;
  // Empty.
  DecisionRecord& record() { return lent_->record; }
  // Of whatever decision was the last.
  ScheduleOutcome& outcome() { return lent_->outcome; }

 private:
  struct Buffers {
    DecisionRecord record;
    ScheduleOutcome outcome;
  };
  static std::vector<std::unique_ptr<Buffers>>& Free() {
    static thread_local std::vector<std::unique_ptr<Buffers>> free;
    return free;
  }
  std::unique_ptr<Buffers> lent_;
};

}  // namespace llmd::sched
