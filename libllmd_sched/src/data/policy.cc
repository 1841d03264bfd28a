#include "llmd/sched/policy.h"

#include <algorithm>

#include "llmd/sched/request_context.h"

namespace llmd::sched {

const std::string& RewriteRule::Choose(uint64_t& random) const {
  uint64_t total = 0;
  for (const RewriteTarget& t : targets) total += static_cast<uint64_t>(t.weight);
  if (total == 0) return targets[RandomBelow(random, targets.size())].model;
  uint64_t draw = RandomBelow(random, total);
  for (const RewriteTarget& t : targets) {
    const uint64_t weight = static_cast<uint64_t>(t.weight);
    if (draw < weight) return t.model;
    draw -= weight;
  }
  return targets.back().model;
}

int PoolPolicy::PriorityOf(std::string_view objective) const {
  const auto it = objectives.find(objective);
  return it == objectives.end() ? 0 : it->second;
}

const RewriteRule* PoolPolicy::RuleFor(std::string_view model) const {
  const RewriteRule* generic = nullptr;
  for (const RewriteRule& rule : rules) {
    if (std::find(rule.models.begin(), rule.models.end(), model) != rule.models.end()) return &rule;
    if (rule.models.empty() && generic == nullptr) generic = &rule;
  }
  return generic;
}

}  // namespace llmd::sched
