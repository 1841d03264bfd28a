// What goes into the engine and what comes out: token ids only; text is serving's.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "llmd/clock.h"
#include "llmd/engine/sampling.h"
#include "llmd/json.h"
#include "llmd/status.h"

namespace llmd::engine {

enum class FinishReason { kNone, kStop, kLength, kAbort, kError };
std::string_view FinishReasonName(
    FinishReason reason);  // "stop", "length", "abort", "error"; kNone = ""

struct TokenLogprob {
  TokenId id = 0;
  float logprob = 0;
  int rank = 0;  // 1 = most likely
};
// One position: the sampled (or given) token first, then the top ones.
using PositionLogprobs = std::vector<TokenLogprob>;

// Delivered on the engine thread, once per step in which the request made progress visible to its
// client; must not block and must not call back into the engine.
struct Output {
  std::vector<TokenId> tokens;                // new since the last output
  std::vector<PositionLogprobs> logprobs;     // one per token when asked for
  FinishReason finish = FinishReason::kNone;  // the last output carries one
  std::optional<TokenId> stop_token;  // the stop_token_ids entry that ended it; nothing for EOS
  Status error;                       // with kError
  // Set on the first output:
  int cached_tokens = 0;                          // prompt tokens taken from the local prefix cache
  int remote_tokens = 0;                          // prompt tokens whose KV came from another engine
  std::vector<PositionLogprobs> prompt_logprobs;  // [prompt_len - 1], positions 1…; when asked for
  TimePoint queued{}, scheduled{};  // taken into the waiting queue; first put into a step
  // When its KV was read from another engine; epoch = it was not.
  TimePoint load_started{}, load_ended{};
  // Set on the last output of a prefill leg (do_remote_decode): vLLM's object, to be handed to the
  // decode engine.
  std::optional<json::Value> kv_transfer_params;
};
using OutputFn = std::function<void(Output&&)>;

struct Request {
  std::string id;               // unique among those in flight
  std::vector<TokenId> prompt;  // at least one token
  SamplingParams sampling;
  int priority = 0;                // lower first
  std::string cache_salt;          // enters the first block's hash
  json::Value kv_transfer_params;  // null, or the client's object (docs/wire/kv-transfer-params.md)
  // False: it is one of several prompts or choices of one client's request, whose
  // kv_transfer_params cannot be meant for each. Nothing is lent and nothing taken.
  bool transferable = true;
  OutputFn on_output;
};

// Live figures for metrics and for a router. All counters are totals since start.
struct EngineStats {
  int running = 0, waiting = 0, waiting_for_remote = 0;
  // Without the null block; free counts cached-but-unreferenced ones.
  int total_blocks = 0, free_blocks = 0;
  int pinned_blocks = 0;                         // held for remote readers
  uint64_t prefix_queries = 0, prefix_hits = 0;  // tokens
  uint64_t prompt_tokens = 0, generation_tokens = 0, preemptions = 0;
  uint64_t prompt_tokens_local_compute = 0, prompt_tokens_local_cache = 0, prompt_tokens_remote = 0;
  uint64_t steps = 0;
  int max_rows_in_step = 0;       // most sequences that shared one step
  uint64_t kv_load_failures = 0;  // pulls that did not bring everything; the rest was computed here
  // Remote KV that was not taken: one of several prompts or choices; the lender does not say what
  // it is of; another prompt's; another model's.
  uint64_t kv_refused_several = 0, kv_refused_unproved = 0, kv_refused_prompt = 0,
           kv_refused_model = 0;
};

}  // namespace llmd::engine
