// What a pool says of requests besides its endpoints: the priority of each objective and the model
// names to replace (the InferenceObjective and InferenceModelRewrite of llm-d; here sections of the
// endpoints file, docs/reference/data.md). Immutable once shared.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace llmd::sched {

struct RewriteTarget {
  std::string model;
  int weight = 0;  // 0 = not given
};

struct RewriteRule {
  std::string rewrite;              // name of the object it belongs to
  std::vector<std::string> models;  // exact names; empty = every model
  std::vector<RewriteTarget> targets;
  // One target by weight; without any weight uniform, and with some those without are never chosen.
  const std::string& Choose(uint64_t& random) const;
};

struct PoolPolicy {
  std::map<std::string, int, std::less<>> objectives;  // name → priority
  std::vector<RewriteRule> rules;                      // in configured order
  // 0 for a name that is not known.
  int PriorityOf(std::string_view objective) const;
  // The first rule that names the model, else the first for every model, else null.
  const RewriteRule* RuleFor(std::string_view model) const;
};

}  // namespace llmd::sched
