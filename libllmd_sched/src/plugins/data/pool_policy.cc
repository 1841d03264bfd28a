#include <set>

#include "llmd/sched/plugin.h"
#include "plugins/data/endpoints_file.h"

namespace llmd::sched {
namespace {

constexpr int64_t kMaxWeight = 1'000'000;

// Runs `read` on each item of a list and gathers the errors.
template <typename Read>
void ForEach(Params& parent, std::string_view key, Read read) {
  const config::Node list = parent.node(key);
  if (!list.IsList() && !list.IsNull()) return parent.Fail(key, "expected a list");
  for (const config::Node& item : list.Items()) {
    Params params(item);
    read(params);
    if (Status status = params.Finish(); !status.ok()) parent.Fail(status);
  }
}

std::string ReadName(Params& params, std::set<std::string>& seen) {
  std::string name = params.String("name", "");
  if (name.empty()) params.Fail("name", "expected a name");
  if (!seen.insert(name).second) params.Fail("name", "'" + name + "' appears twice");
  return name;
}

std::string ReadMatch(Params& match) {
  Params model(match.node("model"));
  model.Choice("type", "Exact", {"Exact"});
  std::string value = model.String("value", "");
  if (value.empty()) model.Fail("value", "expected a model name");
  if (Status status = model.Finish(); !status.ok()) match.Fail(status);
  return value;
}

RewriteRule ReadRule(Params& rule, const std::string& rewrite) {
  RewriteRule out;
  out.rewrite = rewrite;
  ForEach(rule, "matches", [&](Params& match) { out.models.push_back(ReadMatch(match)); });
  ForEach(rule, "targets", [&](Params& target) {
    RewriteTarget t;
    t.model = target.String("modelRewrite", "");
    t.weight = static_cast<int>(target.Has("weight") ? target.Int("weight", 1, 1, kMaxWeight) : 0);
    if (t.model.empty()) target.Fail("modelRewrite", "expected a model name");
    out.targets.push_back(std::move(t));
  });
  if (out.targets.empty()) rule.Fail("targets", "expected at least one target");
  return out;
}

}  // namespace

PoolPolicy ReadPolicy(Params& top) {
  PoolPolicy out;
  std::set<std::string> objectives, rewrites;
  ForEach(top, "objectives", [&](Params& objective) {
    const std::string name = ReadName(objective, objectives);
    out.objectives[name] = static_cast<int>(objective.Int("priority", 0, INT32_MIN, INT32_MAX));
  });
  ForEach(top, "rewrites", [&](Params& rewrite) {
    const std::string name = ReadName(rewrite, rewrites);
    ForEach(rewrite, "rules", [&](Params& rule) { out.rules.push_back(ReadRule(rule, name)); });
  });
  return out;
}

}  // namespace llmd::sched
