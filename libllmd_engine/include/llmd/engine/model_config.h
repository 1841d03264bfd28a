// The numbers of an architecture, whatever file they came from.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace llmd::engine {

struct ModelConfig {
  std::string architecture;  // "llama"
  std::string name;          // general.name
  int hidden = 0, layers = 0, heads = 0, kv_heads = 0, head_dim = 0, ffn = 0, vocab = 0;
  // Equal only for models whose keys and values are equal: 32 hex digits over the weights and what
  // the file says of their use, then the arithmetic they are used in.
  std::string fingerprint;
  int max_position = 0;  // context_length
  float rms_eps = 1e-5f;
  float rope_theta = 10000.0f;
  std::vector<float> rope_freq_factors;  // [head_dim / 2] divisors, empty = none
  bool tied_embeddings = false;
  std::vector<int32_t> eos_ids;
};

}  // namespace llmd::engine
