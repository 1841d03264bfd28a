#include <algorithm>

#include "llmd/sched/filter.h"
#include "plugins/builtin.h"
#include "plugins/common.h"

namespace llmd::sched {
namespace {

enum class Operator { kIn, kNotIn, kExists, kDoesNotExist };
struct Requirement {
  std::string key;
  Operator op = Operator::kIn;
  std::vector<std::string> values;

  // As Kubernetes has it: NotIn also matches endpoints without the label.
  bool Matches(const EndpointInfo& info) const {
    const auto it = info.labels.find(key);
    if (it == info.labels.end()) return op == Operator::kNotIn || op == Operator::kDoesNotExist;
    const bool listed = std::find(values.begin(), values.end(), it->second) != values.end();
    switch (op) {
      case Operator::kIn:
        return listed;
      case Operator::kNotIn:
        return !listed;
      case Operator::kExists:
        return true;
      case Operator::kDoesNotExist:
        return false;
    }
    return false;
  }
};

class LabelFilter final : public Filter {
 public:
  explicit LabelFilter(std::vector<Requirement> all, bool without_label = false)
      : all_(std::move(all)), without_label_(without_label) {}
  void Keep(RequestContext&, const Snapshot& snapshot, std::vector<uint32_t>& candidates) override {
    if (snapshot.size() == 0) return;
    const auto keep =
        cache_.Get(snapshot.set, [this](const EndpointInfo& info) { return Matches(info); });
    std::erase_if(candidates, [&](uint32_t i) { return !(*keep)[i]; });
  }

 private:
  uint8_t Matches(const EndpointInfo& info) const {
    return std::all_of(all_.begin(), all_.end(), [&](const Requirement& r) {
      return r.Matches(info) || (without_label_ && !info.labels.contains(r.key));
    });
  }
  const std::vector<Requirement> all_;
  const bool without_label_;  // by-label's allowsNoLabel
  PerSet<uint8_t> cache_;
};

void ReadExpression(Params& params, const config::Node& node, std::vector<Requirement>& out) {
  Params expression(node);
  Requirement r{expression.String("key", ""), Operator::kIn, expression.Strings("values")};
  const std::string op =
      expression.Choice("operator", "In", {"In", "NotIn", "Exists", "DoesNotExist"});
  r.op = op == "In"       ? Operator::kIn
         : op == "NotIn"  ? Operator::kNotIn
         : op == "Exists" ? Operator::kExists
                          : Operator::kDoesNotExist;
  const bool wants_values = r.op == Operator::kIn || r.op == Operator::kNotIn;
  if (r.key.empty()) expression.Fail("key", "expected a label name");
  if (wants_values == r.values.empty()) {
    expression.Fail("values", wants_values ? "expected at least one value"
                                           : "expected no values with this operator");
  }
  if (Status status = expression.Finish(); !status.ok()) params.Fail(status);
  out.push_back(std::move(r));
}

StatusOr<std::unique_ptr<Plugin>> MakeSelector(PluginArgs& args) {
  Params params(args.parameters);
  std::vector<Requirement> all;
  for (const auto& [key, value] : params.node("matchLabels").Members()) {
    StatusOr<std::string> text = value.String();
    if (!text.ok()) params.Fail(text.status());
    all.push_back({key, Operator::kIn, {text.value_or("")}});
  }
  for (const config::Node& item : params.node("matchExpressions").Items())
    ReadExpression(params, item, all);
  return Done(params, std::make_unique<LabelFilter>(std::move(all)));
}

StatusOr<std::unique_ptr<Plugin>> MakeByLabel(PluginArgs& args) {
  Params params(args.parameters);
  Requirement r{params.String("label", ""), Operator::kIn, params.Strings("validValues")};
  const bool allows_none = params.Bool("allowsNoLabel", false);
  if (r.key.empty()) params.Fail("label", "expected a label name");
  if (r.values.empty() && !allows_none) params.Fail("validValues", "expected at least one value");
  return Done(params,
              std::make_unique<LabelFilter>(std::vector<Requirement>{std::move(r)}, allows_none));
}

}  // namespace

Status RegisterLabelFilters(PluginRegistry& registry) {
  const std::vector<ParamHelp> selector = {
      {"matchLabels", "{}", "labels that must have these values"},
      {"matchExpressions", "[]", "{key, operator, values}"}};
  for (const char* type : {"label-selector-filter", "by-label-selector"}) {
    LLMD_RETURN_IF_ERROR(AddPlugin(
        registry, {.type = type,
                   .kind = "filter",
                   .stability = type[0] == 'b' ? Stability::kDeprecated : Stability::kBeta,
                   .help = "Keeps endpoints that match a Kubernetes label selector.",
                   .params = selector,
                   .make = MakeSelector}));
  }
  return AddPlugin(registry,
                   {.type = "by-label",
                    .kind = "filter",
                    .stability = Stability::kDeprecated,
                    .help = "Keeps endpoints whose label has one of the given values.",
                    .params = {{"label", "", "label name"},
                               {"validValues", "[]", "values that pass"},
                               {"allowsNoLabel", "false", "endpoints without the label pass"}},
                    .make = MakeByLabel});
}

}  // namespace llmd::sched
