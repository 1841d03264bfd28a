// How the next token is chosen. Field names, defaults and ranges are vLLM's SamplingParams.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "llmd/status.h"

namespace llmd::engine {

using TokenId = int32_t;

struct SamplingParams {
  int max_tokens = 16;
  int min_tokens = 0;
  float temperature = 1.0f;  // below 1e-5: greedy
  float top_p = 1.0f;
  int top_k = 0;  // 0 or -1: off
  float min_p = 0.0f;
  float repetition_penalty = 1.0f;
  float presence_penalty = 0.0f;
  float frequency_penalty = 0.0f;
  std::optional<int64_t> seed;
  std::vector<TokenId> stop_token_ids;
  bool ignore_eos = false;
  std::vector<std::pair<TokenId, float>> logit_bias;
  std::vector<TokenId> allowed_token_ids;       // empty = all
  std::vector<std::vector<TokenId>> bad_words;  // the last token is banned behind the others
  std::optional<int> logprobs;                  // top-k beside the sampled one; -1 = vocabulary
  std::optional<int> prompt_logprobs;
};

// INVALID_ARGUMENT naming field, value and range.
Status Validate(const SamplingParams& params, int vocab_size);

}  // namespace llmd::engine
