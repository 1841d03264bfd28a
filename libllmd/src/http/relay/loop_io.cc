// Connections of a loop: accepting them, sharing them out, closing the idle ones.
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "http/relay/client.h"
#include "http/relay/loop_impl.h"
#include "http/relay/upstream.h"
#include "llmd/http/error_body.h"

namespace llmd::relay {
namespace {

// A turn is not for newcomers alone.
constexpr int kAcceptsPerTurn = 64;
// After a lack of descriptors: they come back as connections end.
constexpr Duration kAcceptPause = std::chrono::milliseconds(50);
// Between two lines in the log about it.
constexpr Duration kWarnPause = std::chrono::seconds(1);

// A new connection has an empty send buffer; what its client has sent already is read, lest the
// close resets the connection and takes the answer with it.
void TellNoRoom(int fd) {
  const std::string body = http::ErrorBody(503, "too many connections");
  const std::string answer =
      "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: " +
      std::to_string(body.size()) + "\r\nConnection: close\r\n\r\n" + body;
  (void)!::send(fd, answer.data(), answer.size(), MSG_NOSIGNAL);
  ::shutdown(fd, SHUT_WR);
  std::array<char, 16384> scrap;
  for (int i = 0; i < 16 && ::recv(fd, scrap.data(), scrap.size(), 0) > 0; ++i) {
  }
}

}  // namespace

bool LoopImpl::Watch(int fd, Handler& handler) {
  epoll_event event{};
  event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
  event.data.ptr = &handler;
  return ::epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event) == 0;
}

// One listening socket for all loops: the system wakes one of them for each newcomer.
void LoopImpl::Listen() {
  if (listening_ || listener_ < 0 || shared_.draining.load(std::memory_order_relaxed)) return;
  epoll_event event{};
  event.events = EPOLLIN | EPOLLEXCLUSIVE;
  event.data.ptr = static_cast<Handler*>(&acceptor_);
  listening_ = ::epoll_ctl(epoll_, EPOLL_CTL_ADD, listener_, &event) == 0;
}

void LoopImpl::CloseListener() {
  if (listening_) ::epoll_ctl(epoll_, EPOLL_CTL_DEL, listener_, nullptr);
  listening_ = false;
  listener_ = -1;
}

void LoopImpl::Accept() {
  for (int i = 0; i < kAcceptsPerTurn && listening_; ++i) {
    const int fd = ::accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
      if (errno == EAGAIN || errno == EWOULDBLOCK) return;
      if (errno == EINTR || errno == ECONNABORTED) continue;
      const int error = errno;
      WarnOfAccept(error);
      if (error == EMFILE) {
        if (RefuseByTheSpare()) continue;
        if (spare_ >= 0) return;  // nobody waits
      }
      ::epoll_ctl(epoll_, EPOLL_CTL_DEL, listener_, nullptr);
      listening_ = false;
      return wheel_.Set(accept_again_, now_ + kAcceptPause);
    }
    LoopImpl& loop = LeastLoaded();
    loop.counters.connections.fetch_add(1, std::memory_order_relaxed);
    // Who came first is let in, whenever its loop gets to it.
    const bool full = shared_.connections.fetch_add(1, std::memory_order_relaxed) >=
                      options().server.max_connections;
    if (&loop == this) {
      AddClient(fd, full);
    } else {
      loop.Adopt(fd, full);
    }
  }
}

void LoopImpl::WarnOfAccept(int error) {
  if (now_ < warn_again_) return;
  warn_again_ = now_ + kWarnPause;
  shared_.logger.Warn("cannot accept connections", {{"error", std::strerror(error)}});
}

// Out of descriptors: a newcomer is told so on the one that is kept for that. False when nobody
// waits, or that one is gone too.
bool LoopImpl::RefuseByTheSpare() {
  if (spare_ < 0) return OpenSpare();
  ::close(std::exchange(spare_, -1));
  const int fd = ::accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd >= 0) {
    if (!options().server.tls) TellNoRoom(fd);
    ::close(fd);
  }
  return OpenSpare() && fd >= 0;
}

bool LoopImpl::OpenSpare() {
  spare_ = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  return spare_ >= 0;
}

// Few connections with much traffic are shared out as well as many: the next one goes where there
// are fewest.
LoopImpl& LoopImpl::LeastLoaded() {
  LoopImpl* least = this;
  size_t fewest = counters.connections.load(std::memory_order_relaxed);
  for (LoopImpl* loop : shared_.loops) {
    const size_t has = loop->counters.connections.load(std::memory_order_relaxed);
    if (has < fewest) {
      fewest = has;
      least = loop;
    }
  }
  return *least;
}

void LoopImpl::Adopt(int fd, bool full) {
  if (Post([this, fd, full] { AddClient(fd, full); })) return;
  ::close(fd);
  counters.connections.fetch_sub(1, std::memory_order_relaxed);
  shared_.connections.fetch_sub(1, std::memory_order_relaxed);
}

void LoopImpl::AddClient(int fd, bool full) {
  Bump(counters.accepted);
  if (free_clients_.empty()) {
    clients_.push_back(std::make_unique<Client>(*this));
    free_clients_.push_back(clients_.back().get());
  }
  Client& client = *free_clients_.back();
  free_clients_.pop_back();
  client.Begin(fd, full);
}

void LoopImpl::BeginDrain() {
  CloseListener();
  for (size_t i = 0; i < clients_.size(); ++i) {
    if (clients_[i]->open()) clients_[i]->CloseIfIdle();
  }
}

}  // namespace llmd::relay
