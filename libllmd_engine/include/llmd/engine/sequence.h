// One request inside the engine: its tokens so far, its blocks, and how far it has been computed.
// Owned by the engine thread once submitted.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "llmd/engine/connector/transfer_params.h"
#include "llmd/engine/logits.h"
#include "llmd/engine/request.h"
#include "llmd/kv/block_hash.h"

namespace llmd::engine {

enum class SequenceState { kWaiting, kWaitingForRemote, kRunning, kPreempted, kFinished };

struct Sequence {
  uint64_t number = 0;  // order of arrival, unique in the engine
  Request request;
  SequenceState state = SequenceState::kWaiting;
  std::vector<TokenId> tokens;  // prompt, then output
  int prompt_len = 0;
  int num_computed = 0;  // tokens whose KV is in `blocks` (or will be after the step in flight)
  std::vector<int32_t> blocks;      // the block table
  std::vector<kv::Digest> digests;  // of the full blocks of `tokens`, as far as known
  int num_committed = 0;            // leading blocks that are findable in the pool
  int preemptions = 0;

  uint64_t sampling_seed = 0;
  LogitsState logits;
  std::vector<PositionLogprobs> prompt_logprobs;

  std::optional<TransferParams> transfer;
  bool remote_pending = false;  // do_remote_prefill and the lender has not been answered yet
  bool admitted = false;        // was scheduled at least once: prompt accounting is done
  int cached_tokens = 0;        // of the prompt, at first admission
  int remote_tokens = 0;
  int load_local_tokens = 0;  // while kWaitingForRemote: where the pulled tokens begin
  TimePoint queued{}, scheduled{}, load_started{}, load_ended{};  // as of Output
  bool output_sent = false;
  bool dequeued = false;  // no longer counts against the queue's bound

  int num_tokens() const { return static_cast<int>(tokens.size()); }
  int num_output() const { return num_tokens() - prompt_len; }
  bool wants_prompt_logprobs() const { return request.sampling.prompt_logprobs.has_value(); }
};

}  // namespace llmd::engine
