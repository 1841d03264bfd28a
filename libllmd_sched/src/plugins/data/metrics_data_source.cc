#include "llmd/sched/source.h"
#include "plugins/builtin.h"
#include "plugins/common.h"

namespace llmd::sched {
namespace {

class MetricsDataSource final : public Source {
 public:
  explicit MetricsDataSource(PageSpec page) : page_(std::move(page)) {}
  const PageSpec& page() const override { return page_; }

 private:
  const PageSpec page_;
};

}  // namespace

Status RegisterMetricsDataSource(PluginRegistry& registry) {
  return AddPlugin(registry, {.type = "metrics-data-source",
                              .kind = "source",
                              .help = "Reads each endpoint's Prometheus page.",
                              .params = {{"scheme", "http", "only http in this build"},
                                         {"path", "/metrics", "page to read"},
                                         {"port", "", "instead of the endpoint's port"},
                                         {"interval", "", "instead of --refresh-metrics-interval"}},
                              .make = [](PluginArgs& args) -> StatusOr<std::unique_ptr<Plugin>> {
                                Params params(args.parameters);
                                PageSpec page;
                                if (params.String("scheme", "http") != "http") {
                                  params.Fail("scheme", "only http is supported yet");
                                }
                                page.path = params.String("path", "/metrics");
                                page.port = static_cast<uint16_t>(params.Int("port", 0, 0, 65535));
                                page.interval = params.Time("interval", Duration::zero());
                                if (!page.path.starts_with('/'))
                                  params.Fail("path", "expected a path that begins with '/'");
                                return Done(params,
                                            std::make_unique<MetricsDataSource>(std::move(page)));
                              }});
}

}  // namespace llmd::sched
