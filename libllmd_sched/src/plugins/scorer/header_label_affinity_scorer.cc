// Formula: docs/reference/scorers.md: 1 if the label equals the header, else 0.
#include "llmd/sched/scorer.h"
#include "plugins/builtin.h"
#include "plugins/common.h"
#include "plugins/session.h"

namespace llmd::sched {
namespace {

class HeaderLabelAffinityScorer final : public Scorer {
 public:
  HeaderLabelAffinityScorer(std::string header, std::string label)
      : header_(std::move(header)), label_(std::move(label)) {}
  void Score(RequestContext& request, const Snapshot& snapshot,
             std::span<const uint32_t> candidates, std::span<double> scores) override {
    const std::string_view wanted = request.Header(header_);
    for (size_t i = 0; i < candidates.size(); ++i) {
      const auto& labels = snapshot.info(candidates[i]).labels;
      const auto it = labels.find(label_);
      scores[i] = !wanted.empty() && it != labels.end() && it->second == wanted ? 1.0 : 0.0;
    }
  }

 private:
  const std::string header_, label_;
};

}  // namespace

Status RegisterHeaderLabelAffinityScorer(PluginRegistry& registry) {
  return AddPlugin(
      registry, {.type = "header-label-affinity-scorer",
                 .kind = "scorer",
                 .stability = Stability::kAlpha,
                 .help = "1 for endpoints whose label has the value of a request header, else 0.",
                 .params = {{"headerName", "", "request header"}, {"labelKey", "", "label"}},
                 .make = [](PluginArgs& args) -> StatusOr<std::unique_ptr<Plugin>> {
                   Params params(args.parameters);
                   std::string header = Lower(params.String("headerName", ""));
                   std::string label = params.String("labelKey", "");
                   if (header.empty()) params.Fail("headerName", "expected a header name");
                   if (label.empty()) params.Fail("labelKey", "expected a label name");
                   return Done(params, std::make_unique<HeaderLabelAffinityScorer>(
                                           std::move(header), std::move(label)));
                 }});
}

}  // namespace llmd::sched
