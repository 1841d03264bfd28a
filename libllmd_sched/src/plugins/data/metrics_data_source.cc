#include "plugins/builtin.h"
#include "plugins/common.h"
#include "plugins/data/page_source.h"

namespace llmd::sched {

Status RegisterMetricsDataSource(PluginRegistry& registry) {
  return AddPlugin(registry, {.type = "metrics-data-source",
                              .kind = "source",
                              .help = "Reads each endpoint's Prometheus page.",
                              .params = PageParams({}, "--refresh-metrics-interval"),
                              .make = [](PluginArgs& args) -> StatusOr<std::unique_ptr<Plugin>> {
                                Params params(args.parameters);
                                PageSpec page = ReadPage(params, args.env, {});
                                return Done(params, MakePageSource(std::move(page)));
                              }});
}

}  // namespace llmd::sched
