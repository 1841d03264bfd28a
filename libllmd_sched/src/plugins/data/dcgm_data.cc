// GPU utilisation from NVIDIA's DCGM exporter, beside the engine or once a node.
#include <algorithm>
#include <cmath>

#include "llmd/prom_text.h"
#include "llmd/sched/extractor.h"
#include "plugins/builtin.h"
#include "plugins/common.h"
#include "plugins/data/page_source.h"

namespace llmd::sched {
namespace {

constexpr const char* kNodeLabel = "llm-d.ai/node-address";

PageSpec DcgmPage() {
  PageSpec page;
  page.port = 9400;
  page.interval = std::chrono::seconds(1);  // the exporter samples no faster by default
  return page;
}

// The busiest of the endpoint's GPUs, 0..1. Samples with a `pod` label count for the endpoint of
// that name only, as an exporter may tell of a whole node.
class DcgmExtractor final : public Extractor {
 public:
  explicit DcgmExtractor(const AttributeId* utilization) : utilization_(utilization) {}
  Status Extract(std::string_view page, const EndpointInfo& endpoint,
                 EndpointMetrics* metrics) override {
    double highest = -1;
    scanner_.Scan(page, [&](const PromSample& sample) {
      const std::optional<std::string_view> pod = FindLabel(sample.labels, "pod");
      if (!std::isfinite(sample.value) || (pod && !pod->empty() && !IsOf(endpoint, *pod))) return;
      highest = std::max(highest, sample.value);
    });
    if (highest < 0) {
      return NotFound("the page of " + endpoint.FullName() + " has no DCGM_FI_DEV_GPU_UTIL of it");
    }
    metrics->SetAttribute(*utilization_, std::clamp(highest / 100, 0.0, 1.0));
    return OkStatus();
  }

 private:
  // Ranks of one pod are endpoints "<pod>-rank-<i>".
  static bool IsOf(const EndpointInfo& endpoint, std::string_view pod) {
    return endpoint.name == pod ||
           endpoint.name == std::string(pod) + "-rank-" + std::to_string(endpoint.rank);
  }
  const PromScanner scanner_{{"DCGM_FI_DEV_GPU_UTIL"}};
  const AttributeId* const utilization_;
};

StatusOr<std::unique_ptr<Plugin>> MakeSource(PluginArgs& args) {
  Params params(args.parameters);
  PageSpec page = ReadPage(params, args.env, DcgmPage());
  if (params.Bool("useNodeAddress", false)) page.address_label = kNodeLabel;
  return Done(params, MakePageSource(std::move(page)));
}

}  // namespace

Status RegisterDcgmData(PluginRegistry& registry) {
  std::vector<ParamHelp> help = PageParams(DcgmPage(), "1s");
  help.push_back({"useNodeAddress", "false",
                  "ask the node instead of the endpoint: its address is the endpoint's label "
                  "llm-d.ai/node-address"});
  LLMD_RETURN_IF_ERROR(AddPlugin(registry, {.type = "dcgm-data-source",
                                            .kind = "source",
                                            .stability = Stability::kAlpha,
                                            .help = "Reads the DCGM exporter of each endpoint.",
                                            .params = std::move(help),
                                            .make = MakeSource}));
  return AddPlugin(
      registry, {.type = "dcgm-extractor",
                 .kind = "extractor",
                 .stability = Stability::kAlpha,
                 .help = "Fills GPUUtilization: the highest DCGM_FI_DEV_GPU_UTIL of an endpoint's "
                         "GPUs, 0 to 1.",
                 .make = [](PluginArgs& args) -> StatusOr<std::unique_ptr<Plugin>> {
                   Params params(args.parameters);
                   const AttributeId* id = args.env.ProduceAttribute("GPUUtilization");
                   return Done(params, std::make_unique<DcgmExtractor>(id));
                 }});
}

}  // namespace llmd::sched
