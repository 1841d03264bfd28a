// Draws the next token from a row of logits. Order (vLLM's): raw log-probabilities are read off
// first; then the row's processors (logits.h); greedy below temperature 1e-5, else temperature,
// min-p, top-k (ties kept), top-p, and one draw. A draw is a function of (seed, position, row)
// only: it does not depend on the batch, on time or on earlier draws.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "llmd/engine/logits.h"
#include "llmd/engine/request.h"
#include "llmd/engine/sampling.h"

namespace llmd::engine {

inline constexpr float kGreedyTemperature = 1e-5f;

// Philox4x32-10 (Salmon et al., SC'11): 64 random bits for a key and a counter.
uint64_t PhiloxBits(uint64_t key, uint64_t counter);

// The first index of the largest value; one pass.
TokenId ArgMax(std::span<const float> values);

// exp for x <= 0, within 2e-7 relative; below -87 it is 0. Written so that loops over it vectorise.
float FastExp(float x);

// Scratch for one engine thread; no allocation after construction but for logprobs.
// Thread-compatible.
class Sampler {
 public:
  explicit Sampler(int vocab_size);

  // `logits` is overwritten. `state` and `output` are the sequence's; `position` is the new token's
  // place in it. `logprobs`, if not null, gets the sampled token, then the params.logprobs most
  // likely ones, from the raw row.
  TokenId Sample(const SamplingParams& params, LogitsState& state, std::span<const TokenId> output,
                 uint64_t seed, uint64_t position, std::span<float> logits,
                 PositionLogprobs* logprobs);

  // Log-probability and rank (ids at least as likely) of `token`, then of the `top` most likely ids
  // (-1 = all).
  void Logprobs(std::span<const float> logits, TokenId token, int top, PositionLogprobs& out);

 private:
  struct Candidate {
    float logit;
    float weight;
    TokenId id;
  };
  TokenId Draw(const SamplingParams& params, double uniform, std::span<const float> logits);
  TokenId DrawFromAll(double uniform, size_t n);
  TokenId DrawFromCandidates(double uniform) const;
  float KthLargest(std::span<const float> logits, int k);
  void KeepNucleus(double top_p);

  std::vector<float> raw_;      // copy of the row, when logprobs are wanted
  std::vector<float> weights_;  // unnormalised probabilities
  std::vector<float> heap_;
  std::vector<Candidate> candidates_;
  std::vector<TokenId> ids_;
};

}  // namespace llmd::engine
