// Rule: docs/reference/filters.md, endpoint-attribute-filter.
#include <algorithm>
#include <cmath>

#include "llmd/sched/filter.h"
#include "plugins/builtin.h"
#include "plugins/common.h"
#include "plugins/endpoint_attribute.h"

namespace llmd::sched {
namespace {

using Operator = bool (*)(double value, double threshold);

const std::vector<std::pair<std::string, Operator>>& Operators() {
  static const std::vector<std::pair<std::string, Operator>> kOperators = {
      {"LessThan", [](double v, double t) { return v < t; }},
      {"LessThanOrEqual", [](double v, double t) { return v <= t; }},
      {"GreaterThan", [](double v, double t) { return v > t; }},
      {"GreaterThanOrEqual", [](double v, double t) { return v >= t; }},
      {"Equal", [](double v, double t) { return v == t; }},
      {"NotEqual", [](double v, double t) { return v != t; }}};
  return kOperators;
}

struct Settings {
  AttributeId attribute = kNoAttribute;
  Operator holds = nullptr;
  double threshold = 0;
  bool keep_missing = true, fallback = false;
};

class EndpointAttributeFilter final : public Filter {
 public:
  explicit EndpointAttributeFilter(Settings settings) : s_(settings) {}
  void Keep(RequestContext&, const Snapshot& snapshot, std::vector<uint32_t>& candidates) override {
    const auto drop = [&](uint32_t c) {
      const double value = snapshot.Attribute(s_.attribute, c);
      return std::isnan(value) ? !s_.keep_missing : !s_.holds(value, s_.threshold);
    };
    if (s_.fallback && std::all_of(candidates.begin(), candidates.end(), drop)) return;
    std::erase_if(candidates, drop);
  }
  bool drops_saturated() const override { return true; }

 private:
  const Settings s_;
};

void ReadThreshold(Params& params, Settings* s) {
  Params algorithm(params.node("algorithm"));
  algorithm.Choice("type", "", {"threshold"});
  Params threshold(algorithm.node("threshold"));
  std::vector<std::string> names;
  for (const auto& [name, holds] : Operators()) names.push_back(name);
  const std::string chosen = threshold.Choice("operator", "", names);
  for (const auto& [name, holds] : Operators()) {
    if (name == chosen) s->holds = holds;
  }
  if (!threshold.Has("value")) threshold.Fail("value", "expected a number");
  s->threshold = threshold.Double("value", 0, -1e300, 1e300);
  if (Status status = threshold.Finish(); !status.ok()) algorithm.Fail(status);
  if (Status status = algorithm.Finish(); !status.ok()) params.Fail(status);
}

StatusOr<std::unique_ptr<Plugin>> Make(PluginArgs& args) {
  Params params(args.parameters);
  Settings s;
  s.attribute = ReadAttribute(params, args.env, "attribute");
  s.keep_missing = params.Choice("onMissing", "Pass", {"Pass", "Fail"}) == "Pass";
  s.fallback = params.Bool("fallbackOnEmpty", false);
  ReadThreshold(params, &s);
  return Done(params, std::make_unique<EndpointAttributeFilter>(s));
}

}  // namespace

Status RegisterEndpointAttributeFilter(PluginRegistry& registry) {
  return AddPlugin(
      registry,
      {.type = "endpoint-attribute-filter",
       .kind = "filter",
       .stability = Stability::kAlpha,
       .help = "Keeps endpoints one of whose attributes stands in a relation to a threshold.",
       .params = {{"attribute", "", "name of the attribute"},
                  {"producer", "core-metrics-extractor",
                   "extractor that fills it; \"\" = whichever does"},
                  {"onMissing", "Pass", "or Fail: what becomes of endpoints without it"},
                  {"fallbackOnEmpty", "false", "keep all when none would remain"},
                  {"algorithm", "",
                   "{type: threshold, threshold: {operator, value}}; operator is LessThan, "
                   "LessThanOrEqual, GreaterThan, GreaterThanOrEqual, Equal or NotEqual"}},
       .make = Make});
}

}  // namespace llmd::sched
