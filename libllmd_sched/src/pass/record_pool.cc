#include "pass/record_pool.h"

namespace llmd::sched {
namespace {

constexpr size_t kKept = 64;

}  // namespace

std::shared_ptr<DecisionRecord> RecordPool::Take() {
  std::unique_ptr<DecisionRecord> record;
  {
    const std::lock_guard lock(state_->mutex);
    if (!state_->free.empty()) {
      record = std::move(state_->free.back());
      state_->free.pop_back();
    }
  }
  if (record == nullptr) record = std::make_unique<DecisionRecord>();
  return {record.release(), [state = state_](DecisionRecord* done) {
            Return(state, std::unique_ptr<DecisionRecord>(done));
          }};
}

void RecordPool::Return(const std::shared_ptr<State>& state,
                        std::unique_ptr<DecisionRecord> record) {
  record->Reset();
  const std::lock_guard lock(state->mutex);
  if (state->free.size() < kKept) state->free.push_back(std::move(record));
}

}  // namespace llmd::sched
