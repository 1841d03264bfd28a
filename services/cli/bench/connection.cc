#include "cli/bench/connection.h"

#include <netdb.h>
#include <netinet/tcp.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace llmd::bench {

StatusOr<Address> Resolve(const http::HostPort& peer) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int rc = getaddrinfo(peer.host.c_str(), std::to_string(peer.port).c_str(), &hints, &found);
  if (rc != 0) return Unavailable(peer.ToString() + ": " + gai_strerror(rc));
  Address out;
  std::memcpy(&out.storage, found->ai_addr, found->ai_addrlen);
  out.size = found->ai_addrlen;
  freeaddrinfo(found);
  return out;
}

int Connect(const Address& address) {
  const int fd =
      socket(address.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);
  if (fd < 0) return -errno;
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address.storage), address.size) == 0 ||
      errno == EINPROGRESS) {
    return fd;
  }
  const int error = errno;
  close(fd);
  return -error;
}

Failure ConnectFailure(int error) {
  switch (error) {
    case ECONNREFUSED:
      return Failure::kRefused;
    case ETIMEDOUT:
      return Failure::kConnectTimeout;
    case EMFILE:
    case ENFILE:
    case ENOMEM:
    case ENOBUFS:
    case EADDRNOTAVAIL:
    case EAGAIN:
      return Failure::kLocal;
    default:
      return Failure::kConnect;
  }
}

ssize_t Connection::Send(std::string_view bytes) {
  return tls ? tls->Write(bytes) : send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
}

ssize_t Connection::Receive(char* to, size_t room) {
  if (!tls) return recv(fd, to, room, 0);
  size_t bytes = 0;
  switch (tls->Read(to, room, &bytes)) {
    case http::TlsSession::Step::kDone:
      return static_cast<ssize_t>(bytes);
    case http::TlsSession::Step::kEnd:
      return 0;
    case http::TlsSession::Step::kFailed:
      errno = ECONNRESET;
      return -1;
    default:
      errno = EAGAIN;
      return -1;
  }
}

void InFlightList::PushBack(Connection& connection) {
  connection.before = last_;
  connection.behind = nullptr;
  (last_ != nullptr ? last_->behind : first_) = &connection;
  last_ = &connection;
}

void InFlightList::Remove(Connection& connection) {
  (connection.before != nullptr ? connection.before->behind : first_) = connection.behind;
  (connection.behind != nullptr ? connection.behind->before : last_) = connection.before;
  connection.before = connection.behind = nullptr;
}

}  // namespace llmd::bench
