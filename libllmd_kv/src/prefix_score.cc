#include "llmd/kv/prefix_score.h"

#include <algorithm>

namespace llmd::kv {
namespace {

// How far one endpoint has come in the walk of one prompt.
struct Run {
  uint32_t depth = 0;  // keys held so far: its run lives while this is the key's place
  uint32_t cpu = 0;
  double best = 0;  // weight at the present key
};

}  // namespace

PrefixScorer::Tier PrefixScorer::TierOf(const Index& index, uint16_t tier) const {
  const std::string name = index.TierName(tier);
  const auto it = weights_.find(name);
  return {it == weights_.end() ? 1.0 : it->second, name == "cpu"};
}

void PrefixScorer::Score(const Index& index, std::span<const uint64_t> keys,
                         std::span<PrefixMatch> matches) const {
  static thread_local std::vector<Run> runs;
  static thread_local std::vector<uint32_t> touched;
  static thread_local std::vector<std::pair<uint16_t, Tier>> tiers;
  runs.assign(matches.size(), {});
  tiers.clear();
  const auto tier_of = [&](uint16_t number) {
    for (const auto& [known, tier] : tiers)
      if (known == number) return tier;
    return tiers.emplace_back(number, TierOf(index, number)).second;
  };
  const auto visit = [&](size_t key, std::span<const IndexHolder> holders) {
    const auto place = static_cast<uint32_t>(key);
    touched.clear();
    for (const IndexHolder& holder : holders) {
      if (holder.endpoint >= runs.size()) continue;
      Run& run = runs[holder.endpoint];
      const Tier tier = tier_of(holder.tier);
      if (run.depth == place) {
        ++run.depth;
        run.best = tier.weight;
        touched.push_back(holder.endpoint);
      } else if (run.depth == place + 1) {
        run.best = std::max(run.best, tier.weight);
      }
      if (tier.cpu && run.cpu == place) ++run.cpu;
    }
    for (uint32_t endpoint : touched) matches[endpoint].score += runs[endpoint].best;
    return !touched.empty();
  };
  index.Walk(keys, std::cref(visit));
  for (size_t i = 0; i < runs.size(); ++i) {
    matches[i].blocks += runs[i].depth;
    matches[i].cpu_run += std::min(runs[i].cpu, runs[i].depth);
  }
}

}  // namespace llmd::kv
