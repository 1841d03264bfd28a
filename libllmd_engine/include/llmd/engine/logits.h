// What happens to a row of logits before a token is drawn from it, in vLLM's order: allowed ids,
// bad words, min_tokens, logit_bias, then repetition, frequency and presence penalties. Cost is per
// id named, not per vocabulary entry. Thread-compatible; owned by the sequence.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "llmd/engine/sampling.h"

namespace llmd::engine {

class LogitsState {
 public:
  // `eos_ids` are the model's. Copies what it needs of `prompt`.
  void Init(const SamplingParams& params, std::span<const TokenId> prompt,
            std::span<const TokenId> eos_ids);
  // A token was sampled.
  void OnToken(TokenId token);
  // Whether Apply would change a row now.
  bool Active(const SamplingParams& params, size_t num_output) const;
  // `logits` is [vocab]; `output` the tokens sampled so far.
  void Apply(const SamplingParams& params, std::span<const TokenId> output,
             std::span<float> logits);

 private:
  struct Seen {
    TokenId id;
    int32_t output_count;
  };
  void ApplyPenalties(const SamplingParams& params, std::span<float> logits) const;

  bool penalties_ = false;
  std::vector<Seen> seen_;         // ascending ids of prompt and output; empty without penalties
  std::vector<TokenId> stop_ids_;  // banned while min_tokens is not reached
  std::vector<float> kept_;        // scratch of the allowed ids' logits
};

}  // namespace llmd::engine
