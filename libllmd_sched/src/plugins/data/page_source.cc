#include "plugins/data/page_source.h"

#include <algorithm>
#include <fstream>

namespace llmd::sched {
namespace {

class PageSource final : public Source {
 public:
  explicit PageSource(PageSpec page) : page_(std::move(page)) {}
  const PageSpec& page() const override { return page_; }

 private:
  const PageSpec page_;
};

constexpr size_t kMaxPemBytes = 1 << 20;

// The file that `key` names; "" when there is no such parameter.
std::string ReadPem(Params& params, const char* key) {
  const std::string path = params.String(key, "");
  if (path.empty()) return "";
  std::ifstream in(path, std::ios::binary);
  std::string text(kMaxPemBytes + 1, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(in.gcount()));
  if (text.find("-----BEGIN ") == std::string::npos || text.size() > kMaxPemBytes) {
    params.Fail(key, "'" + path + "': expected a readable file with PEM, of at most 1 MiB");
  }
  return text;
}

// Null for scheme http, with which the other parameters have no meaning.
std::shared_ptr<const PageTls> ReadTls(Params& params) {
  const bool https = params.Choice("scheme", "http", {"http", "https"}) == "https";
  auto tls = std::make_shared<PageTls>();
  tls->verify = !params.Bool("insecureSkipVerify", true);
  if (!https) {
    if (tls->verify) params.Fail("insecureSkipVerify", "has no meaning without scheme https");
    for (const char* key : {"caCertPath", "clientCertPath", "clientKeyPath"}) {
      if (!params.String(key, "").empty()) params.Fail(key, "has no meaning without scheme https");
    }
    return nullptr;
  }
  tls->ca = ReadPem(params, "caCertPath");
  tls->chain = ReadPem(params, "clientCertPath");
  tls->key = ReadPem(params, "clientKeyPath");
  if (tls->chain.empty() != tls->key.empty())
    params.Fail("clientCertPath", "goes together with clientKeyPath");
  return tls;
}

}  // namespace

PageSpec ReadPage(Params& params, const PluginEnv& env, PageSpec page) {
  page.tls = ReadTls(params);
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
      {"scheme", "http", "or https"},
      {"path", page.path, "page to read"},
      {"port", page.port == 0 ? "" : std::to_string(page.port), "instead of the endpoint's port"},
      {"interval", interval, "a multiple of --refresh-metrics-interval"},
      {"insecureSkipVerify", "true", "with https: false checks the endpoint's certificate"},
      {"caCertPath", "the system's", "PEM of whom to believe; read when the source is made"},
      {"clientCertPath", "", "PEM to show, with clientKeyPath"},
      {"clientKeyPath", "", "its key"}};
}

}  // namespace llmd::sched
