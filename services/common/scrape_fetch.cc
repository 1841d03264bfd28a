#include "common/scrape_fetch.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <vector>

#include "common/page_reader.h"
#include "common/redirect.h"

namespace llmd::services {
namespace {

using SteadyClock = std::chrono::steady_clock;
using Done = std::function<void(StatusOr<std::string>)>;

constexpr size_t kMaxPageBytes = 8 << 20;
constexpr size_t kMaxIdle = 4;
constexpr auto kIdleFor = std::chrono::seconds(90);
constexpr auto kSweepEvery = std::chrono::milliseconds(50);

struct Peer {
  sockaddr_storage address{};
  socklen_t size = 0;
  void SetPort(uint16_t port) {
    if (address.ss_family == AF_INET)
      reinterpret_cast<sockaddr_in*>(&address)->sin_port = htons(port);
    else
      reinterpret_cast<sockaddr_in6*>(&address)->sin6_port = htons(port);
  }
  // False when the text is no IPv4 or IPv6 address.
  bool Parse(const std::string& text, uint16_t port) {
    auto* v4 = reinterpret_cast<sockaddr_in*>(&address);
    if (inet_pton(AF_INET, text.c_str(), &v4->sin_addr) == 1) {
      v4->sin_family = AF_INET;
      v4->sin_port = htons(port);
      size = sizeof *v4;
      return true;
    }
    auto* v6 = reinterpret_cast<sockaddr_in6*>(&address);
    if (inet_pton(AF_INET6, text.c_str(), &v6->sin6_addr) != 1) return false;
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(port);
    size = sizeof *v6;
    return true;
  }
};

struct Job {
  Peer peer;
  http::Url url;
  std::string host, request;
  SteadyClock::time_point deadline;
  Done done;
  bool retried = false;
  int redirects = 0;
  void MoveTo(http::Url to) {
    url = std::move(to);
    host = url.peer.ToString();
    request = "GET " + url.target + " HTTP/1.1\r\nhost: " + host + "\r\n\r\n";
    peer.SetPort(url.peer.port);
    retried = false;
  }
};

struct Connection {
  int fd = -1;
  std::string host;
  std::unique_ptr<Job> job;  // null while idle
  bool reused = false, connecting = false;
  size_t sent = 0;
  SteadyClock::time_point idle_since{};
  PageReader reader{kMaxPageBytes};
};

class ScrapeFetch final : public sched::Fetch {
 public:
  explicit ScrapeFetch(std::shared_ptr<sched::Fetch> others)
      : others_(std::move(others)),
        epoll_(epoll_create1(EPOLL_CLOEXEC)),
        wake_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
    Watch(wake_, nullptr, EPOLLIN, EPOLL_CTL_ADD);
    thread_ = std::thread([this] { Run(); });
  }
  ~ScrapeFetch() override {
    stopping_ = true;
    Wake();
    thread_.join();
    close(wake_);
    close(epoll_);
  }

  void Post(const std::string& url, std::string body, Duration timeout, Done done) override {
    others_->Post(url, std::move(body), timeout, std::move(done));
  }
  void Get(const sched::EndpointInfo& endpoint, const sched::PageSpec& page, Duration timeout,
           Done done) override {
    auto job = std::make_unique<Job>();
    const uint16_t port = page.port != 0 ? page.port : endpoint.port;
    if (page.tls || !job->peer.Parse(endpoint.address, port))
      return others_->Get(endpoint, page, timeout, std::move(done));
    job->MoveTo({.tls = false, .peer = {endpoint.address, port}, .target = page.path});
    job->deadline = SteadyClock::now() + timeout;
    job->done = std::move(done);
    {
      std::lock_guard lock(mutex_);
      inbox_.push_back(std::move(job));
      if (inbox_.size() > 1) return;  // the thread has been woken for the first
    }
    Wake();
  }

 private:
  void Wake() const {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t n = write(wake_, &one, sizeof one);
  }
  void Watch(int fd, Connection* connection, uint32_t events, int operation) const {
    epoll_event event{};
    event.events = events;
    event.data.ptr = connection;
    epoll_ctl(epoll_, operation, fd, &event);
  }

  void Run() {
    pthread_setname_np(pthread_self(), "scrape");
    std::array<epoll_event, 256> events;
    auto sweep = SteadyClock::now() + kSweepEvery;
    while (!stopping_) {
      const int n = epoll_wait(epoll_, events.data(), static_cast<int>(events.size()),
                               static_cast<int>(kSweepEvery / std::chrono::milliseconds(1)));
      for (int i = 0; i < n; ++i) {
        if (auto* connection = static_cast<Connection*>(events[static_cast<size_t>(i)].data.ptr)) {
          if (connection->fd >= 0) OnEvent(*connection, events[static_cast<size_t>(i)].events);
        } else {
          TakeInbox();
        }
      }
      if (const auto now = SteadyClock::now(); now >= sweep) {
        Sweep(now);
        sweep = now + kSweepEvery;
      }
      closed_.clear();
    }
    Cancel();
  }

  void TakeInbox() {
    uint64_t count = 0;
    [[maybe_unused]] const ssize_t n = read(wake_, &count, sizeof count);
    std::vector<std::unique_ptr<Job>> jobs;
    {
      std::lock_guard lock(mutex_);
      jobs.swap(inbox_);
    }
    for (auto& job : jobs) Start(std::move(job));
  }

  void Start(std::unique_ptr<Job> job) {
    std::vector<Connection*>& idle = idle_[job->host];
    if (!idle.empty() && !job->retried) {
      Connection& connection = *idle.back();
      idle.pop_back();
      connection.reused = true;
      connection.job = std::move(job);
      return Send(connection);
    }
    Connect(std::move(job));
  }

  void Connect(std::unique_ptr<Job> job) {
    auto owned = std::make_unique<Connection>();
    Connection& connection = *owned;
    connection.host = job->host;
    connection.job = std::move(job);
    const Peer& peer = connection.job->peer;
    connection.fd = socket(peer.address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (connection.fd < 0) return Finish(connection, Failed(connection, "socket", errno));
    open_.emplace(&connection, std::move(owned));
    const int one = 1;
    setsockopt(connection.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    Watch(connection.fd, &connection, EPOLLIN | EPOLLOUT, EPOLL_CTL_ADD);
    connection.connecting = true;
    if (connect(connection.fd, reinterpret_cast<const sockaddr*>(&peer.address), peer.size) != 0 &&
        errno != EINPROGRESS) {
      Fail(connection, Failed(connection, "connect", errno));
    }
  }

  void OnEvent(Connection& connection, uint32_t events) {
    if (connection.connecting) {
      int error = 0;
      socklen_t size = sizeof error;
      getsockopt(connection.fd, SOL_SOCKET, SO_ERROR, &error, &size);
      if (error != 0) return Fail(connection, Failed(connection, "connect", error));
      if ((events & EPOLLOUT) == 0) return;
      connection.connecting = false;
      Watch(connection.fd, &connection, EPOLLIN, EPOLL_CTL_MOD);
      return Send(connection);
    }
    if (events & EPOLLOUT) return Send(connection);
    Receive(connection);
  }

  void Send(Connection& connection) {
    const std::string_view rest = std::string_view(connection.job->request).substr(connection.sent);
    const ssize_t n = send(connection.fd, rest.data(), rest.size(), MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN) return Fail(connection, Failed(connection, "send", errno));
    const bool partial = n < static_cast<ssize_t>(rest.size());
    // A request fits the socket's buffer but for broken peers; then wait until it does.
    if (partial || connection.sent > 0)
      Watch(connection.fd, &connection, partial ? EPOLLIN | EPOLLOUT : EPOLLIN, EPOLL_CTL_MOD);
    connection.sent = partial ? connection.sent + static_cast<size_t>(std::max<ssize_t>(n, 0)) : 0;
  }

  void Receive(Connection& connection) {
    const ssize_t n = recv(connection.fd, buffer_.data(), buffer_.size(), 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (!connection.job) return Close(connection);  // an idle one ended, or spoke unasked
    if (n < 0) return Fail(connection, Failed(connection, "receive", errno));
    StatusOr<bool> whole = n == 0
                               ? connection.reader.FeedEnd()
                               : connection.reader.Feed({buffer_.data(), static_cast<size_t>(n)});
    if (!whole.ok()) {
      return Fail(connection, whole.status().WithContext(Where(connection)));
    }
    if (*whole) Complete(connection);
  }

  void Complete(Connection& connection) {
    const int status = connection.reader.status();
    std::string body = connection.reader.TakeBody();
    const std::string location = connection.reader.location();
    std::unique_ptr<Job> job = std::move(connection.job);
    Release(connection);
    if (status / 100 == 2) return job->done(std::move(body));
    const std::string where = job->host + job->url.target;
    if (!IsRedirect(status))
      return job->done(Unavailable(where + " answered " + std::to_string(status)));
    StatusOr<http::Url> to = FollowRedirect(job->url, location);
    if (!to.ok()) return job->done(to.status().WithContext(where));
    if (++job->redirects > kMaxRedirects)
      return job->done(Unavailable(where + ": more than " + std::to_string(kMaxRedirects) +
                                   " redirects one after another"));
    job->MoveTo(std::move(*to));
    Start(std::move(job));
  }

  // Its answer is read: it serves another request, or ends.
  void Release(Connection& connection) {
    const bool keep = connection.reader.keep_alive();
    connection.reader.Reset();
    std::vector<Connection*>& idle = idle_[connection.host];
    if (keep && idle.size() < kMaxIdle) {
      connection.idle_since = SteadyClock::now();
      idle.push_back(&connection);
    } else {
      Close(connection);
    }
  }

  static std::string Where(const Connection& connection) {
    return connection.host + connection.job->url.target;
  }
  static Status Failed(const Connection& connection, const char* what, int error) {
    return Unavailable(Where(connection) + ": " + what + ": " + std::strerror(error));
  }

  // A kept connection may have been closed under the request: then it is asked once more.
  void Fail(Connection& connection, Status status) {
    if (connection.reused && !connection.reader.started() && !connection.job->retried &&
        status.code() == StatusCode::kUnavailable) {
      std::unique_ptr<Job> job = std::move(connection.job);
      Close(connection);
      job->retried = true;
      return Start(std::move(job));
    }
    Finish(connection, std::move(status));
  }

  void Finish(Connection& connection, Status status) {
    const Done done = std::move(connection.job->done);
    connection.job.reset();
    Close(connection);
    done(std::move(status));
  }

  // The memory stays until the events at hand are done.
  void Close(Connection& connection) {
    if (connection.fd >= 0) close(connection.fd);
    connection.fd = -1;
    if (!connection.job) std::erase(idle_[connection.host], &connection);
    const auto it = open_.find(&connection);
    if (it == open_.end()) return;
    closed_.push_back(std::move(it->second));
    open_.erase(it);
  }

  void Sweep(SteadyClock::time_point now) {
    std::vector<Connection*> late, old;
    for (const auto& [connection, owned] : open_) {
      if (connection->job && connection->job->deadline <= now) late.push_back(connection);
      if (!connection->job && connection->idle_since + kIdleFor <= now) old.push_back(connection);
    }
    for (Connection* c : late) Finish(*c, DeadlineExceeded(Where(*c) + ": no answer in time"));
    for (Connection* c : old) Close(*c);
    std::erase_if(idle_, [](const auto& entry) { return entry.second.empty(); });
  }

  void Cancel() {
    TakeInbox();
    std::vector<Connection*> all;
    all.reserve(open_.size());
    for (const auto& [connection, owned] : open_) all.push_back(connection);
    for (Connection* c : all) {
      if (c->job) {
        Finish(*c, Cancelled(Where(*c) + ": stopping"));
      } else {
        Close(*c);
      }
    }
  }

  const std::shared_ptr<sched::Fetch> others_;
  const int epoll_, wake_;
  std::atomic<bool> stopping_{false};
  std::mutex mutex_;
  std::vector<std::unique_ptr<Job>> inbox_;  // guarded by mutex_
  // The rest belongs to the thread.
  std::vector<char> buffer_ = std::vector<char>(256 << 10);
  std::unordered_map<Connection*, std::unique_ptr<Connection>> open_;
  std::unordered_map<std::string, std::vector<Connection*>> idle_;  // by host
  std::vector<std::unique_ptr<Connection>> closed_;
  std::thread thread_;
};

}  // namespace

std::shared_ptr<sched::Fetch> MakeScrapeFetch(std::shared_ptr<sched::Fetch> others) {
  return std::make_shared<ScrapeFetch>(std::move(others));
}

}  // namespace llmd::services
