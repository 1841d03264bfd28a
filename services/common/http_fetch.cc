#include "common/http_fetch.h"

#include <mutex>
#include <vector>

#include "common/redirect.h"

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
    http::Url url{.tls = page.tls != nullptr,
                  .peer = {endpoint.address, page.port != 0 ? page.port : endpoint.port},
                  .target = page.path};
    http::RequestHead head;
    Start(page.tls, std::move(url), std::move(head), std::string(), timeout, std::move(done));
  }

  void Post(const std::string& url, std::string body, Duration timeout, Done done) override {
    StatusOr<http::Url> to = http::ParseUrl(url);
    if (!to.ok()) return done(to.status());
    http::RequestHead head;
    head.method = "POST";
    head.headers.Add("content-type", "application/json");
    const Tls tls = to->tls ? believed_ : nullptr;
    Start(tls, std::move(*to), std::move(head), std::move(body), timeout, std::move(done));
  }

 private:
  void Start(const Tls& tls, http::Url url, http::RequestHead head, std::string body,
             Duration timeout, Done done) {
    StatusOr<SharedClient> client = tls ? ClientOf(tls) : plain_;
    if (!client.ok()) return done(client.status().WithContext(url.peer.ToString()));
    runtime_.Spawn(Fetch(std::move(*client), std::move(url), std::move(head), std::move(body),
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
  // Redirects of a GET are followed; each hop has `timeout`.
  static http::Task<void> Fetch(SharedClient client, http::Url url, http::RequestHead head,
                                std::string body, Duration timeout, Done done) {
    http::CallOptions options;
    options.first_byte_timeout = timeout;
    options.read_timeout = timeout;
    const bool get = head.method == "GET";
    for (int redirects = 0;; ++redirects) {
      const std::string where = url.peer.ToString() + url.target;
      head.target = url.target;
      http::HostPort peer = url.peer;
      http::RequestHead ask = head;
      std::string sent = body;
      auto response = co_await client->Fetch(std::move(peer), std::move(ask), std::move(sent),
                                             options, kMaxPageBytes);
      if (!response.ok()) co_return done(response.status());
      const int status = response->head.status;
      if (status / 100 == 2) co_return done(std::move(response->body));
      if (!get || !IsRedirect(status))
        co_return done(Unavailable(where + " answered " + std::to_string(status)));
      const std::string location(response->head.headers.Get("location").value_or(""));
      StatusOr<http::Url> to = FollowRedirect(url, location);
      if (!to.ok()) co_return done(to.status().WithContext(where));
      if (redirects == kMaxRedirects)
        co_return done(Unavailable(where + ": more than " + std::to_string(kMaxRedirects) +
                                   " redirects one after another"));
      url = std::move(*to);
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
