#include "plugins/data/page_source.h"

#include <algorithm>

namespace llmd::sched {
namespace {

class PageSource final : public Source {
 public:
  explicit PageSource(PageSpec page) : page_(std::move(page)) {}
  const PageSpec& page() const override { return page_; }

 private:
  const PageSpec page_;
};

// TLS towards engines is not built, so its parameters mean nothing; upstream's default for them is
// written in many files and passes.
void ReadTls(Params& params) {
  if (params.Choice("scheme", "http", {"http", "https"}) == "https")
    params.Fail("scheme", "only http is built: https needs TLS towards the endpoints");
  if (!params.Bool("insecureSkipVerify", true))
    params.Fail("insecureSkipVerify", "has no meaning without scheme https, which is not built");
  for (const char* key : {"caCertPath", "clientCertPath", "clientKeyPath"}) {
    if (!params.String(key, "").empty())
      params.Fail(key, "has no meaning without scheme https, which is not built");
  }
}

}  // namespace

PageSpec ReadPage(Params& params, const PluginEnv& env, PageSpec page) {
  ReadTls(params);
  page.path = params.String("path", page.path);
  if (!page.path.starts_with('/')) params.Fail("path", "expected a path that begins with '/'");
  page.port = static_cast<uint16_t>(params.Int("port", page.port, 0, 65535));
  const Duration interval = params.Time("interval", page.interval);
  const Duration base = std::max<Duration>(env.refresh_interval, std::chrono::milliseconds(1));
  if (params.Has("interval") &&
      (interval <= Duration::zero() || interval % base != Duration::zero())) {
    params.Fail("interval", "expected a multiple of --refresh-metrics-interval, which is " +
                                std::to_string(base.count() / 1'000'000) + "ms");
  }
  // A default of ours goes up to the next multiple.
  page.interval = (interval + base - Duration(1)) / base * base;
  return page;
}

std::unique_ptr<Plugin> MakePageSource(PageSpec page) {
  return std::make_unique<PageSource>(std::move(page));
}

std::vector<ParamHelp> PageParams(const PageSpec& page, const std::string& interval) {
  return {
      {"scheme", "http", "https is refused: TLS towards endpoints is not built"},
      {"path", page.path, "page to read"},
      {"port", page.port == 0 ? "" : std::to_string(page.port), "instead of the endpoint's port"},
      {"interval", interval, "a multiple of --refresh-metrics-interval"},
      {"insecureSkipVerify", "true", "only true, as only http is built"},
      {"caCertPath", "", "refused, as only http is built"},
      {"clientCertPath", "", "refused, as only http is built"},
      {"clientKeyPath", "", "refused, as only http is built"}};
}

}  // namespace llmd::sched
