// Places a burst of requests that share prompts, apart from how they are collected
// (docs/reference/producers.md).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace llmd::sched {

// One request of the burst.
struct BurstItem {
  std::span<const uint64_t> chain;  // its block hashes, all prompts in order
  double weight = 1;                // what it adds to an endpoint's load
  int assigned = -1;                // index of an endpoint; -1 = wherever
};
struct BurstEndpoint {
  std::string name;
  double running = 0;  // requests, as the engine says
};
struct BurstRules {
  int max_per_replica = -1;        // requests of one group on an endpoint; -1 = all of them
  size_t min_colocate_blocks = 0;  // blocks that two prompts must share to attract; 0 = whole ones
};

// Fills `assigned`. Requests with equal chains form a group, which stays together; single ones are
// placed only when they share the first min_colocate_blocks with another. Groups go first, long
// prompts before short ones; each to the endpoint that already has most of its prefix (of at least
// min_colocate_blocks, and while that has less than its fair share of the burst), else to the one
// with the least of the burst. Ties: fewer running requests, then the name.
void PlaceBurst(std::span<BurstItem> items, std::span<const BurstEndpoint> endpoints,
                const BurstRules& rules);

}  // namespace llmd::sched
