#include "plugins/producer/burst_plan.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <unordered_map>

namespace llmd::sched {
namespace {

struct Unit {
  std::vector<size_t> members;  // indexes of items with one chain
  size_t blocks = 0;
};

class Placement {
 public:
  Placement(std::span<BurstItem> items, std::span<const BurstEndpoint> endpoints,
            const BurstRules& rules)
      : items_(items),
        endpoints_(endpoints),
        rules_(rules),
        load_(endpoints.size()),
        of_unit_(endpoints.size()) {}

  void Run() {
    const std::vector<Unit> units = Units();
    double total = 0;
    for (const Unit& unit : units)
      for (size_t i : unit.members) total += items_[i].weight;
    fair_share_ = std::ceil(total / static_cast<double>(endpoints_.size()));
    for (const Unit& unit : units) Place(unit);
  }

 private:
  // Groups first, then single requests that share a beginning; long chains before short ones.
  std::vector<Unit> Units() const {
    std::map<std::vector<uint64_t>, size_t> seen;
    std::vector<Unit> all;
    for (size_t i = 0; i < items_.size(); ++i) {
      const auto& chain = items_[i].chain;
      if (chain.empty()) continue;
      const auto [it, fresh] = seen.emplace(std::vector(chain.begin(), chain.end()), all.size());
      if (fresh) all.push_back({{}, chain.size()});
      all[it->second].members.push_back(i);
    }
    std::vector<Unit> out;
    const std::unordered_map<uint64_t, size_t> sharing = Sharing(all);
    for (Unit& unit : all) {
      const bool group = unit.members.size() > 1;
      if (group || IsShared(unit, sharing)) out.push_back(std::move(unit));
    }
    std::sort(out.begin(), out.end(), [](const Unit& a, const Unit& b) {
      const bool group_a = a.members.size() > 1, group_b = b.members.size() > 1;
      if (group_a != group_b) return group_a;
      return a.blocks != b.blocks ? a.blocks > b.blocks : a.members[0] < b.members[0];
    });
    return out;
  }
  // A chain's hash at a place names all before it.
  uint64_t Beginning(const Unit& unit) const {
    return items_[unit.members[0]].chain[rules_.min_colocate_blocks - 1];
  }
  std::unordered_map<uint64_t, size_t> Sharing(const std::vector<Unit>& units) const {
    std::unordered_map<uint64_t, size_t> out;
    if (rules_.min_colocate_blocks == 0) return out;
    for (const Unit& unit : units) {
      if (unit.blocks >= rules_.min_colocate_blocks) out[Beginning(unit)] += unit.members.size();
    }
    return out;
  }
  bool IsShared(const Unit& unit, const std::unordered_map<uint64_t, size_t>& sharing) const {
    if (rules_.min_colocate_blocks == 0 || unit.blocks < rules_.min_colocate_blocks) return false;
    return sharing.at(Beginning(unit)) > 1;
  }

  void Place(const Unit& unit) {
    const std::span<const uint64_t> chain = items_[unit.members[0]].chain;
    std::fill(of_unit_.begin(), of_unit_.end(), 0);
    bool first = true;
    for (size_t at = 0; at < unit.members.size(); first = false) {
      const int near = first ? Nearest(chain) : -1;
      const size_t target = near >= 0 ? static_cast<size_t>(near) : LeastLoaded();
      size_t run = unit.members.size() - at;
      if (rules_.max_per_replica >= 0) {
        // One at a time once all are at the limit.
        const int left = std::max(rules_.max_per_replica - of_unit_[target], 1);
        run = std::min(run, static_cast<size_t>(left));
      }
      for (const size_t end = at + run; at < end; ++at) {
        BurstItem& item = items_[unit.members[at]];
        item.assigned = static_cast<int>(target);
        load_[target] += item.weight;
        ++of_unit_[target];
      }
      for (uint64_t hash : chain) Hold(hash, target);
    }
  }
  void Hold(uint64_t hash, size_t endpoint) {
    std::vector<size_t>& holders = holders_[hash];
    if (std::find(holders.begin(), holders.end(), endpoint) == holders.end())
      holders.push_back(endpoint);
  }
  // The endpoint with the longest shared beginning, or -1.
  int Nearest(std::span<const uint64_t> chain) const {
    if (rules_.min_colocate_blocks == 0) return -1;
    std::vector<size_t> shared(endpoints_.size());
    for (size_t depth = 0; depth < chain.size(); ++depth) {
      const auto it = holders_.find(chain[depth]);
      if (it == holders_.end()) break;
      for (size_t e : it->second) shared[e] += shared[e] == depth;
    }
    int best = -1;
    for (size_t e = 0; e < endpoints_.size(); ++e) {
      if (shared[e] < rules_.min_colocate_blocks || load_[e] >= fair_share_) continue;
      const size_t most = best < 0 ? 0 : shared[static_cast<size_t>(best)];
      if (shared[e] > most || (shared[e] == most && Before(e, static_cast<size_t>(best))))
        best = static_cast<int>(e);
    }
    return best;
  }
  size_t LeastLoaded() const {
    int best = -1;
    for (bool limited : {true, false}) {
      for (size_t e = 0; e < endpoints_.size(); ++e) {
        const bool full = rules_.max_per_replica >= 0 && of_unit_[e] >= rules_.max_per_replica;
        if (limited && full) continue;
        if (best < 0 || Before(e, static_cast<size_t>(best))) best = static_cast<int>(e);
      }
      if (best >= 0) break;
    }
    return static_cast<size_t>(best);
  }
  bool Before(size_t a, size_t b) const {
    if (load_[a] != load_[b]) return load_[a] < load_[b];
    if (endpoints_[a].running != endpoints_[b].running)
      return endpoints_[a].running < endpoints_[b].running;
    return endpoints_[a].name < endpoints_[b].name;
  }

  const std::span<BurstItem> items_;
  const std::span<const BurstEndpoint> endpoints_;
  const BurstRules rules_;
  double fair_share_ = 0;
  std::vector<double> load_;  // of this burst
  std::vector<int> of_unit_;  // requests of the present unit
  std::unordered_map<uint64_t, std::vector<size_t>> holders_;
};

}  // namespace

void PlaceBurst(std::span<BurstItem> items, std::span<const BurstEndpoint> endpoints,
                const BurstRules& rules) {
  if (!endpoints.empty()) Placement(items, endpoints, rules).Run();
}

}  // namespace llmd::sched
