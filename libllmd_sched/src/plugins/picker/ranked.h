// Shared by the pickers: the parameter they have in common and a top-k by a two-part key.
#pragma once

#include <algorithm>
#include <span>
#include <vector>

#include "llmd/sched/plugin.h"

namespace llmd::sched {

struct RankKey {
  double score = 0, tie = 0;
  bool operator>(const RankKey& o) const {
    return score != o.score ? score > o.score : tie > o.tie;
  }
};

inline const ParamHelp kMaxEndpointsHelp{"maxNumOfEndpoints", "1",
                                         "endpoints returned; those after the first are fallbacks"};

// maxNumOfEndpoints; what is not positive means 1.
inline size_t MaxEndpoints(Params& params) {
  const int64_t count = params.Int("maxNumOfEndpoints", 1, INT32_MIN, INT32_MAX);
  return count <= 0 ? 1 : static_cast<size_t>(count);
}

// Appends the `count` candidates with the greatest keys, best first. `key(i)` is called once per
// candidate, in order.
template <typename Key>
void PickRanked(std::span<const uint32_t> candidates, size_t count, std::vector<uint32_t>& picked,
                Key key) {
  struct Entry {
    RankKey key;
    uint32_t candidate;
  };
  static thread_local std::vector<Entry> entries;
  entries.clear();
  for (size_t i = 0; i < candidates.size(); ++i) entries.push_back({key(i), candidates[i]});
  const size_t n = std::min(count, entries.size());
  std::partial_sort(entries.begin(), entries.begin() + static_cast<ptrdiff_t>(n), entries.end(),
                    [](const Entry& a, const Entry& b) { return a.key > b.key; });
  for (size_t i = 0; i < n; ++i) picked.push_back(entries[i].candidate);
}

}  // namespace llmd::sched
