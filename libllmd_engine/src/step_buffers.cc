#include "step_buffers.h"

#include <algorithm>

namespace llmd::engine {

// A pre-empted sequence passes its prompt again; positions it has reported already are skipped.
bool WantsPromptLogprob(const Sequence& sequence, int position) {
  return sequence.wants_prompt_logprobs() && position + 1 < sequence.prompt_len &&
         position >= static_cast<int>(sequence.prompt_logprobs.size());
}

StepBuffers::StepBuffers(int max_tokens, int max_seqs, int max_blocks_per_seq, int max_logit_rows,
                         int vocab_size)
    : vocab_size_(vocab_size),
      logits_(new float[static_cast<size_t>(max_logit_rows) * vocab_size]) {
  tokens_.reserve(max_tokens);
  positions_.reserve(max_tokens);
  slots_.reserve(max_tokens);
  query_start_.reserve(max_seqs + 1);
  context_len_.reserve(max_seqs);
  block_table_.reserve(static_cast<size_t>(max_seqs) * max_blocks_per_seq);
  logit_rows_.reserve(max_logit_rows);
}

StepBatch StepBuffers::Build(const StepPlan& plan, int block_size) {
  tokens_.clear();
  positions_.clear();
  slots_.clear();
  context_len_.clear();
  block_table_.clear();
  logit_rows_.clear();
  query_start_.assign(1, 0);
  size_t width = 0;
  for (const ScheduledSequence& item : plan.items)
    width = std::max(width, item.sequence->blocks.size());
  for (const ScheduledSequence& item : plan.items)
    AddSequence(item, block_size, static_cast<int>(width));
  return {tokens_,
          positions_,
          slots_,
          query_start_,
          context_len_,
          block_table_,
          static_cast<int>(width),
          logit_rows_};
}

void StepBuffers::AddSequence(const ScheduledSequence& item, int block_size, int table_width) {
  const Sequence& s = *item.sequence;
  const int end = item.start + item.num_tokens;
  for (int position = item.start; position < end; ++position) {
    if ((item.samples && position + 1 == end) || WantsPromptLogprob(s, position)) {
      logit_rows_.push_back(static_cast<int32_t>(tokens_.size()));
    }
    tokens_.push_back(s.tokens[position]);
    positions_.push_back(position);
    slots_.push_back(int64_t{s.blocks[position / block_size]} * block_size + position % block_size);
  }
  query_start_.push_back(static_cast<int32_t>(tokens_.size()));
  context_len_.push_back(end);
  block_table_.insert(block_table_.end(), s.blocks.begin(), s.blocks.end());
  block_table_.insert(block_table_.end(), table_width - s.blocks.size(), 0);
}

}  // namespace llmd::engine
