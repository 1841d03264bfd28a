#include "llmd/http/relay/relay.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <latch>
#include <thread>

#include "http/relay/loop_impl.h"
#include "http/relay/socket.h"
#include "http/relay/upstream.h"
#include "llmd/http/message.h"

namespace llmd::relay {
namespace {

constexpr int kMaxLoops = 64;
constexpr int kBacklog = 4096;

// What accepted sockets take over from the listening one.
void SetOptions(int fd, Duration write_timeout) {
  const auto set = [fd](int level, int name, int value) {
    ::setsockopt(fd, level, name, &value, sizeof value);
  };
  set(SOL_SOCKET, SO_REUSEADDR, 1);
  set(IPPROTO_TCP, TCP_NODELAY, 1);
  set(SOL_SOCKET, SO_KEEPALIVE, 1);
  set(IPPROTO_TCP, TCP_KEEPIDLE, 60);
  set(IPPROTO_TCP, TCP_KEEPINTVL, 15);
  set(IPPROTO_TCP, TCP_KEEPCNT, 4);
  const auto millis = std::chrono::duration_cast<std::chrono::milliseconds>(write_timeout);
  set(IPPROTO_TCP, TCP_USER_TIMEOUT, static_cast<int>(std::min<int64_t>(millis.count(), 1 << 30)));
}

struct Address {
  sockaddr_storage storage{};
  socklen_t size = 0;
};

StatusOr<Address> AddressOf(const http::ServerOptions& options, const std::string& where) {
  Address out;
  const std::string host = options.host == "localhost" ? "127.0.0.1" : options.host;
  auto* v4 = reinterpret_cast<sockaddr_in*>(&out.storage);
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&out.storage);
  if (::inet_pton(AF_INET, host.c_str(), &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(options.port);
    out.size = sizeof *v4;
  } else if (::inet_pton(AF_INET6, host.c_str(), &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(options.port);
    out.size = sizeof *v6;
  } else {
    return InvalidArgument("cannot listen on " + where + ": the host is not an IP address");
  }
  return out;
}

}  // namespace

struct Relay::Impl {
  explicit Impl(RelayOptions options) : shared(std::move(options)) {}
  ~Impl() {
    if (listener >= 0) ::close(listener);
  }
  Status Listen();
  void CloseListener();

  Shared shared;
  int listener = -1;
  uint16_t port = 0;
  std::vector<std::unique_ptr<LoopImpl>> loops;
  std::atomic<bool> stopped{false};
};

Status Relay::Impl::Listen() {
  const http::ServerOptions& server = shared.options.server;
  const std::string where = http::HostPort{server.host, server.port}.ToString();
  LLMD_ASSIGN_OR_RETURN(Address address, AddressOf(server, where));
  listener = ::socket(address.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (listener < 0) return ErrnoStatus(errno, "cannot listen on " + where);
  SetOptions(listener, server.write_timeout);
  auto* const any = reinterpret_cast<sockaddr*>(&address.storage);
  if (::bind(listener, any, address.size) != 0 || ::listen(listener, kBacklog) != 0) {
    if (errno == EADDRINUSE)
      return AlreadyExists("cannot listen on " + where + ": the port is in use");
    return ErrnoStatus(errno, "cannot listen on " + where);
  }
  ::getsockname(listener, any, &address.size);
  port = ntohs(address.storage.ss_family == AF_INET6
                   ? reinterpret_cast<const sockaddr_in6*>(any)->sin6_port
                   : reinterpret_cast<const sockaddr_in*>(any)->sin_port);
  return OkStatus();
}

// Newcomers are refused by the system from here on.
void Relay::Impl::CloseListener() {
  std::latch done(static_cast<ptrdiff_t>(loops.size()));
  for (auto& loop : loops) {
    const bool posted = loop->Post([&loop = *loop, &done] {
      loop.BeginDrain();
      done.count_down();
    });
    if (!posted) done.count_down();
  }
  done.wait();
  if (listener >= 0) ::close(std::exchange(listener, -1));
}

Relay::Relay() = default;

StatusOr<std::unique_ptr<Relay>> Relay::Create(RelayOptions options, const PolicyFactory& policies,
                                               Logger logger) {
  if (options.loops < 1 || options.loops > kMaxLoops) {
    return InvalidArgument("a relay of " + std::to_string(options.loops) +
                           " loops: expected 1 to " + std::to_string(kMaxLoops));
  }
  std::unique_ptr<Relay> relay(new Relay());
  relay->impl_ = std::make_unique<Impl>(std::move(options));
  Impl& impl = *relay->impl_;
  impl.shared.logger = std::move(logger);
  LLMD_RETURN_IF_ERROR(impl.Listen());
  for (int i = 0; i < impl.shared.options.loops; ++i) {
    LoopImpl& loop = *impl.loops.emplace_back(std::make_unique<LoopImpl>(impl.shared, i));
    impl.shared.loops.push_back(&loop);
    LLMD_RETURN_IF_ERROR(loop.Prepare(impl.listener));
    loop.UsePolicy(policies(loop));
  }
  for (auto& loop : impl.loops) loop->Start();
  return relay;
}

Relay::~Relay() {
  if (impl_) Stop(Duration::zero());
}

uint16_t Relay::port() const {
  return impl_->port;
}

size_t Relay::open_connections() const {
  return impl_->shared.connections.load(std::memory_order_relaxed);
}

size_t Relay::active_calls() const {
  size_t all = 0;
  for (const LoopStats& each : Stats()) all += each.active_calls;
  return all;
}

std::vector<LoopStats> Relay::Stats() const {
  std::vector<LoopStats> out;
  for (const auto& loop : impl_->loops) out.push_back(loop->Stats());
  return out;
}

void Relay::Stop(Duration drain) {
  Impl& impl = *impl_;
  if (impl.stopped.exchange(true)) return;
  impl.shared.draining.store(true);
  if (!impl.loops.empty() && impl.loops[0]->started()) impl.CloseListener();
  const TimePoint limit = SystemClock().Now() + drain;
  while (impl.shared.connections.load() > 0 && SystemClock().Now() < limit)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  for (auto& loop : impl.loops) loop->Stop();
}

}  // namespace llmd::relay
