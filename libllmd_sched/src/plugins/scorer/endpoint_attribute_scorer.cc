// Formula: docs/reference/scorers.md: the attribute's place between the lowest and highest value
// of the candidates, or in a fixed range; missing 0, all equal 1.
#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "llmd/sched/scorer.h"
#include "plugins/builtin.h"
#include "plugins/common.h"
#include "plugins/endpoint_attribute.h"

namespace llmd::sched {
namespace {

struct Range {
  double low = 0, high = 0;
};

class EndpointAttributeScorer final : public Scorer {
 public:
  EndpointAttributeScorer(AttributeId attribute, bool lower_is_better, std::optional<Range> fixed)
      : attribute_(attribute), lower_is_better_(lower_is_better), fixed_(fixed) {}

  void Score(RequestContext&, const Snapshot& snapshot, std::span<const uint32_t> candidates,
             std::span<double> scores) override {
    for (size_t i = 0; i < candidates.size(); ++i)
      scores[i] = snapshot.Attribute(attribute_, candidates[i]);
    const Range range = fixed_ ? *fixed_ : RangeOf(scores);
    for (double& score : scores) score = Of(score, range);
  }

 private:
  static Range RangeOf(std::span<const double> values) {
    Range out{std::numeric_limits<double>::infinity(), -std::numeric_limits<double>::infinity()};
    for (double v : values) {
      if (!std::isfinite(v)) continue;
      out.low = std::min(out.low, v);
      out.high = std::max(out.high, v);
    }
    return out;
  }
  double Of(double value, const Range& range) const {
    if (!std::isfinite(value)) return 0;
    if (range.high <= range.low) return 1;
    const double place =
        (std::clamp(value, range.low, range.high) - range.low) / (range.high - range.low);
    return lower_is_better_ ? 1 - place : place;
  }
  const AttributeId attribute_;
  const bool lower_is_better_;
  const std::optional<Range> fixed_;
};

std::optional<Range> ReadNormalization(Params& algorithm) {
  Params params(algorithm.node("normalization"));
  std::optional<Range> out;
  if (params.Has("fixedRange")) {
    Params fixed(params.node("fixedRange"));
    for (const char* key : {"min", "max"}) {
      if (!fixed.Has(key)) fixed.Fail(key, "expected a number");
    }
    out = Range{fixed.Double("min", 0, -1e300, 1e300), fixed.Double("max", 1, -1e300, 1e300)};
    if (out->low >= out->high) fixed.Fail("max", "expected more than min");
    if (Status status = fixed.Finish(); !status.ok()) params.Fail(status);
    if (params.Has("adaptiveRange"))
      params.Fail("adaptiveRange", "a range is fixed or adaptive, not both");
  }
  Params adaptive(params.node("adaptiveRange"));
  if (Status status = adaptive.Finish(); !status.ok()) params.Fail(status);
  if (Status status = params.Finish(); !status.ok()) algorithm.Fail(status);
  return out;
}

StatusOr<std::unique_ptr<Plugin>> Make(PluginArgs& args) {
  Params params(args.parameters);
  const AttributeId attribute = ReadAttribute(params, args.env, "attributeKey");
  Params algorithm(params.node("algorithm"));
  const bool lower =
      algorithm.Choice("type", "", {"linear_lower_is_better", "linear_higher_is_better"}) ==
      "linear_lower_is_better";
  const std::optional<Range> fixed = ReadNormalization(algorithm);
  if (Status status = algorithm.Finish(); !status.ok()) params.Fail(status);
  return Done(params, std::make_unique<EndpointAttributeScorer>(attribute, lower, fixed));
}

}  // namespace

Status RegisterEndpointAttributeScorer(PluginRegistry& registry) {
  return AddPlugin(
      registry,
      {.type = "endpoint-attribute-scorer",
       .kind = "scorer",
       .stability = Stability::kAlpha,
       .help = "Prefers low or high values of an endpoint attribute, linearly.",
       .params = {{"attributeKey", "", "name of the attribute"},
                  {"producer", "core-metrics-extractor",
                   "extractor that fills it; \"\" = whichever does"},
                  {"algorithm.type", "", "linear_lower_is_better or linear_higher_is_better"},
                  {"algorithm.normalization", "adaptiveRange",
                   "{adaptiveRange: {}}: between the candidates' lowest and highest; or "
                   "{fixedRange: {min, max}}"}},
       .make = Make});
}

}  // namespace llmd::sched
