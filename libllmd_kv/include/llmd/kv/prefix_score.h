// How much of a prompt each endpoint holds without a hole (llm-d's longest prefix scorer).
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "llmd/kv/index.h"

namespace llmd::kv {

struct PrefixMatch {
  double score = 0;      // sum over the blocks of the best weight among the tiers that hold it
  uint32_t blocks = 0;   // of the run from block 0
  uint32_t cpu_run = 0;  // blocks of the run from block 0 in the cpu tier alone
};

// Weights by tier name; a tier that is not named counts 1. Thread-safe.
class PrefixScorer {
 public:
  explicit PrefixScorer(std::map<std::string, double, std::less<>> weights)
      : weights_(std::move(weights)) {}
  // Adds the match of one prompt to matches[endpoint number]; endpoints with higher numbers are
  // left out. Allocates nothing once its thread has seen as many endpoints.
  void Score(const Index& index, std::span<const uint64_t> keys,
             std::span<PrefixMatch> matches) const;

 private:
  struct Tier {
    double weight = 1;
    bool cpu = false;
  };
  Tier TierOf(const Index& index, uint16_t tier) const;
  const std::map<std::string, double, std::less<>> weights_;
};

}  // namespace llmd::kv
