#include "common/http_fetch.h"

#include <mutex>
#include <vector>

namespace llmd::services {
namespace {

constexpr size_t kMaxPageBytes = 8 << 20;

using Done = std::function<void(StatusOr<std::string>)>;

using Tls = std::shared_ptr<const sched::PageTls>;
using SharedClient = std::shared_ptr<http::Client>;

StatusOr<SharedClient> MakeClient(http::Runtime& runtime, const sched::PageTls* tls) {
  http::ClientOptions options;
  options.connect_timeout = std::chrono::seconds(1);
  if (tls != nullptr) {
    LLMD_ASSIGN_OR_RETURN(
        options.tls, http::TlsContext::CreateClient({tls->verify, tls->ca, tls->chain, tls->key}));
  }
  return std::make_shared<http::Client>(runtime, std::move(options));
}

class HttpFetch final : public sched::Fetch {
 public:
  explicit HttpFetch(http::Runtime& runtime)
      : runtime_(runtime), plain_(*MakeClient(runtime, nullptr)) {}

  void Get(const sched::EndpointInfo& endpoint, const sched::PageSpec& page, Duration timeout,
           Done done) override {
    http::HostPort peer{endpoint.address, page.port != 0 ? page.port : endpoint.port};
    http::RequestHead head;
    head.target = page.path;
    Start(page.tls, std::move(peer), std::move(head), std::string(), timeout, std::move(done));
  }

  void Post(const std::string& url, std::string body, Duration timeout, Done done) override {
    StatusOr<http::Url> to = http::ParseUrl(url);
    if (!to.ok()) return done(to.status());
    http::RequestHead head;
    head.method = "POST";
    head.target = std::move(to->target);
    head.headers.Add("content-type", "application/json");
    Start(to->tls ? believed_ : nullptr, std::move(to->peer), std::move(head), std::move(body),
          timeout, std::move(done));
  }

 private:
  void Start(const Tls& tls, http::HostPort peer, http::RequestHead head, std::string body,
             Duration timeout, Done done) {
    StatusOr<SharedClient> client = tls ? ClientOf(tls) : plain_;
    if (!client.ok()) return done(client.status().WithContext(peer.ToString()));
    runtime_.Spawn(Fetch(std::move(*client), std::move(peer), std::move(head), std::move(body),
                         timeout, std::move(done)));
  }
  // One a source that reads over TLS, gone after it.
  StatusOr<SharedClient> ClientOf(const Tls& tls) {
    const std::lock_guard lock(mutex_);
    for (const Secured& known : secured_) {
      if (known.tls.lock() == tls) return known.client;
    }
    std::erase_if(secured_, [](const Secured& known) { return known.tls.expired(); });
    secured_.push_back({tls, MakeClient(runtime_, tls.get())});
    return secured_.back().client;
  }
  static http::Task<void> Fetch(SharedClient client, http::HostPort peer, http::RequestHead head,
                                std::string body, Duration timeout, Done done) {
    http::CallOptions options;
    options.first_byte_timeout = timeout;
    options.read_timeout = timeout;
    const std::string where = peer.ToString() + head.target;
    auto response = co_await client->Fetch(std::move(peer), std::move(head), std::move(body),
                                           options, kMaxPageBytes);
    if (!response.ok()) {
      done(response.status());
    } else if (response->head.status / 100 != 2) {
      done(Unavailable(where + " answered " + std::to_string(response->head.status)));
    } else {
      done(std::move(response->body));
    }
  }

  struct Secured {
    std::weak_ptr<const sched::PageTls> tls;
    StatusOr<SharedClient> client;
  };
  http::Runtime& runtime_;
  const SharedClient plain_;
  const Tls believed_ = std::make_shared<sched::PageTls>(sched::PageTls{.verify = true});
  std::mutex mutex_;
  std::vector<Secured> secured_;  // guarded by mutex_
};

}  // namespace

std::shared_ptr<sched::Fetch> MakeHttpFetch(http::Runtime& runtime) {
  return std::make_shared<HttpFetch>(runtime);
}

}  // namespace llmd::services
