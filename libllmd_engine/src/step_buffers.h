// The arrays of one step, laid out for Model::Forward. Allocated once for the largest step; filled
// anew each time.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "llmd/engine/batch_scheduler.h"
#include "llmd/engine/model.h"

namespace llmd::engine {

class StepBuffers {
 public:
  StepBuffers(int max_tokens, int max_seqs, int max_blocks_per_seq, int max_logit_rows,
              int vocab_size);

  // Lays out the plan. The batch is valid until the next call.
  StepBatch Build(const StepPlan& plan, int block_size);
  std::span<float> logits() { return {logits_.get(), logit_rows_.size() * vocab_size_}; }
  std::span<float> logits_row(size_t row) {
    return {logits_.get() + row * vocab_size_, vocab_size_};
  }

 private:
  void AddSequence(const ScheduledSequence& item, int block_size, int table_width);

  const size_t vocab_size_;
  std::vector<int32_t> tokens_, positions_, query_start_, context_len_, block_table_, logit_rows_;
  std::vector<int64_t> slots_;
  std::unique_ptr<float[]> logits_;  // not cleared: pages that are never used are never touched
};

// Whether the row of token `position` predicts a prompt token whose log-probability is still
// wanted.
bool WantsPromptLogprob(const Sequence& sequence, int position);

}  // namespace llmd::engine
