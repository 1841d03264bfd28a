#include "common/http_fetch.h"

namespace llmd::services {
namespace {

constexpr size_t kMaxPageBytes = 8 << 20;

using Done = std::function<void(StatusOr<std::string>)>;

http::ClientOptions PageClientOptions() {
  http::ClientOptions options;
  options.connect_timeout = std::chrono::seconds(1);
  return options;
}

class HttpFetch final : public sched::Fetch {
 public:
  explicit HttpFetch(http::Runtime& runtime)
      : runtime_(runtime), client_(runtime, PageClientOptions()) {}

  void Get(const sched::EndpointInfo& endpoint, uint16_t port_override, const std::string& path,
           Duration timeout, Done done) override {
    http::HostPort peer{endpoint.address, port_override != 0 ? port_override : endpoint.port};
    http::RequestHead head;
    head.target = path;
    runtime_.Spawn(
        Fetch(std::move(peer), std::move(head), std::string(), timeout, std::move(done)));
  }

  void Post(const std::string& url, std::string body, Duration timeout, Done done) override {
    constexpr std::string_view kScheme = "http://";
    const std::string_view rest =
        std::string_view(url).substr(std::min(kScheme.size(), url.size()));
    const size_t slash = std::min(rest.find('/'), rest.size());
    std::string authority(rest.substr(0, slash));
    if (authority.find(':', authority.rfind(']') + 1) == std::string::npos) authority += ":80";
    StatusOr<http::HostPort> peer = http::ParseHostPort(authority);
    if (!url.starts_with(kScheme) || !peer.ok())
      return done(InvalidArgument("'" + url + "': expected http://host:port/path"));
    http::RequestHead head;
    head.method = "POST";
    head.target = slash < rest.size() ? std::string(rest.substr(slash)) : "/";
    head.headers.Add("content-type", "application/json");
    runtime_.Spawn(
        Fetch(std::move(*peer), std::move(head), std::move(body), timeout, std::move(done)));
  }

 private:
  http::Task<void> Fetch(http::HostPort peer, http::RequestHead head, std::string body,
                         Duration timeout, Done done) {
    http::CallOptions options;
    options.first_byte_timeout = timeout;
    options.read_timeout = timeout;
    const std::string where = peer.ToString() + head.target;
    auto response = co_await client_.Fetch(std::move(peer), std::move(head), std::move(body),
                                           options, kMaxPageBytes);
    if (!response.ok()) {
      done(response.status());
    } else if (response->head.status / 100 != 2) {
      done(Unavailable(where + " answered " + std::to_string(response->head.status)));
    } else {
      done(std::move(response->body));
    }
  }

  http::Runtime& runtime_;
  http::Client client_;
};

}  // namespace

std::shared_ptr<sched::Fetch> MakeHttpFetch(http::Runtime& runtime) {
  return std::make_shared<HttpFetch>(runtime);
}

}  // namespace llmd::services
