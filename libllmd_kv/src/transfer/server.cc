#include "transfer/server.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <cerrno>

#include "transfer/connection.h"

namespace llmd::kv {
namespace {
constexpr int kTickMs = 200;
constexpr size_t kMaxConnections = 1024;
constexpr int kMaxEvents = 64;
}  // namespace

std::string SocketName(const std::string& engine_id) {
  return "llmd-kv/" + engine_id;
}

TransferServer::TransferServer(Region& region, const AgentOptions& options, LeaseTable& leases,
                               Logger logger, std::function<void()> on_tick)
    : region_(region),
      options_(options),
      leases_(leases),
      logger_(std::move(logger)),
      on_tick_(std::move(on_tick)) {}

TransferServer::~TransferServer() {
  Stop();
}

StatusOr<std::unique_ptr<TransferServer>> TransferServer::Start(Region& region,
                                                                const AgentOptions& options,
                                                                LeaseTable& leases, Logger logger,
                                                                std::function<void()> on_tick) {
  std::unique_ptr<TransferServer> server(
      new TransferServer(region, options, leases, std::move(logger), std::move(on_tick)));
  LLMD_RETURN_IF_ERROR(server->Open());
  server->thread_ = std::thread([s = server.get()] { s->Run(); });
  return server;
}

Status TransferServer::Open() {
  LLMD_ASSIGN_OR_RETURN(tcp_, ListenTcp(options_.host, options_.port, &port_));
  LLMD_ASSIGN_OR_RETURN(local_, ListenAbstract(SocketName(options_.engine_id)));
  epoll_ = UniqueFd(epoll_create1(EPOLL_CLOEXEC));
  if (!epoll_.ok()) return ErrnoStatus(errno, "epoll_create1");
  Watch(EPOLL_CTL_ADD, tcp_.get(), EPOLLIN);
  Watch(EPOLL_CTL_ADD, local_.get(), EPOLLIN);
  Watch(EPOLL_CTL_ADD, stop_.fd(), EPOLLIN);
  return OkStatus();
}

void TransferServer::Stop() {
  if (!thread_.joinable()) return;
  stop_.Set();
  thread_.join();
  connections_.clear();
  tcp_.Reset();
  local_.Reset();
}

void TransferServer::Watch(int op, int fd, uint32_t events) {
  epoll_event event{};
  event.events = events;
  event.data.fd = fd;
  LLMD_CHECK(epoll_ctl(epoll_.get(), op, fd, &event) == 0);
}

void TransferServer::Run() {
  auto next_tick = std::chrono::steady_clock::now();
  while (!stop_.IsSet()) {
    epoll_event events[kMaxEvents];
    const int count = epoll_wait(epoll_.get(), events, kMaxEvents, kTickMs);
    for (int i = 0; i < count; ++i) {
      const int fd = events[i].data.fd;
      if (fd == tcp_.get()) {
        Accept(fd, false);
      } else if (fd == local_.get()) {
        Accept(fd, true);
      } else if (fd != stop_.fd()) {
        Serve(fd, events[i].events);
      }
    }
    if (std::chrono::steady_clock::now() < next_tick) continue;
    next_tick = std::chrono::steady_clock::now() + std::chrono::milliseconds(kTickMs);
    DropStalled();
    on_tick_();
  }
}

void TransferServer::Accept(int listener, bool local) {
  UniqueFd fd(accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (!fd.ok()) return;
  if (connections_.size() >= kMaxConnections) {
    logger_.Warn("KV transfer: connection refused, too many readers",
                 {{"limit", static_cast<int64_t>(kMaxConnections)}});
    return;
  }
  if (local) {
    if (const Status status = CheckPeerUser(fd.get()); !status.ok()) {
      logger_.Warn("KV transfer: connection refused", {{"error", status.ToString()}});
      return;
    }
  } else {
    TuneTcp(fd.get(), options_.read_timeout);
  }
  const int key = fd.get();
  connections_[key] =
      std::make_unique<Connection>(std::move(fd), local, region_, options_, leases_);
  Watch(EPOLL_CTL_ADD, key, EPOLLIN);
}

void TransferServer::Serve(int fd, uint32_t events) {
  const auto at = connections_.find(fd);
  if (at == connections_.end()) return;
  Connection& connection = *at->second;
  bool open = true;
  if ((events & EPOLLOUT) != 0) {
    open = connection.OnWritable();
  } else if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) {
    open = connection.OnReadable();
  }
  if (open && (events & EPOLLERR) == 0) {
    // While something is owed nothing more is read: the reader's pace bounds what is held for it.
    Watch(EPOLL_CTL_MOD, fd, connection.wants_write() ? EPOLLOUT : EPOLLIN);
    return;
  }
  logger_.Log(LogLevel::kDebug, "KV transfer: connection ended",
              {{"reason", connection.why().ToString()}});
  connections_.erase(at);
}

void TransferServer::DropStalled() {
  const auto now = std::chrono::steady_clock::now();
  std::erase_if(connections_, [&](const auto& entry) {
    const auto since = entry.second->waiting_since();
    return since && now - *since > options_.read_timeout;
  });
}

}  // namespace llmd::kv
