#include "http/relay/socket.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace llmd::relay {
namespace {

Io FromErrno() {
  return errno == EAGAIN || errno == EWOULDBLOCK ? Io::kAgain : Io::kError;
}

// The front of the parts as one piece: the first part itself, or several of them gathered.
std::string_view Gather(const iovec* parts, size_t count, char* scratch) {
  if (count == 1 || parts[0].iov_len >= Socket::kRecordBytes)
    return {static_cast<const char*>(parts[0].iov_base), parts[0].iov_len};
  size_t bytes = 0;
  for (size_t i = 0; i < count && bytes < Socket::kRecordBytes; ++i) {
    const size_t take = std::min(parts[i].iov_len, Socket::kRecordBytes - bytes);
    std::memcpy(scratch + bytes, parts[i].iov_base, take);
    bytes += take;
  }
  return {scratch, bytes};
}

void Advance(iovec*& parts, size_t& count, size_t bytes) {
  while (count > 0 && bytes >= parts->iov_len) {
    bytes -= parts->iov_len;
    ++parts;
    --count;
  }
  if (count == 0) return;
  parts->iov_base = static_cast<char*>(parts->iov_base) + bytes;
  parts->iov_len -= bytes;
}

socklen_t Fill(const Target& target, sockaddr_storage* out) {
  std::memset(out, 0, sizeof *out);
  if (target.v6()) {
    auto* v6 = reinterpret_cast<sockaddr_in6*>(out);
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(target.port());
    std::memcpy(&v6->sin6_addr, target.address().data(), 16);
    return sizeof *v6;
  }
  auto* v4 = reinterpret_cast<sockaddr_in*>(out);
  v4->sin_family = AF_INET;
  v4->sin_port = htons(target.port());
  std::memcpy(&v4->sin_addr, target.address().data(), 4);
  return sizeof *v4;
}

}  // namespace

void WarmSessions::Touch(TlsSocket& session) {
  session.used_ = true;
  if (session.slot_ != TlsSocket::kCold) return;
  session.slot_ = warm_.size();
  warm_.push_back(&session);
}

void WarmSessions::Remove(TlsSocket& session) {
  if (session.slot_ == TlsSocket::kCold) return;
  TlsSocket* const last = warm_.back();
  warm_[session.slot_] = last;
  last->slot_ = session.slot_;
  warm_.pop_back();
  session.slot_ = TlsSocket::kCold;
}

void WarmSessions::Cool() {
  for (size_t i = warm_.size(); i-- > 0;) {
    TlsSocket& session = *warm_[i];
    if (std::exchange(session.used_, false)) continue;
    session.session_.ReleaseBuffers();
    Remove(session);
  }
}

TlsSocket::TlsSocket(std::shared_ptr<const http::TlsContext> context, int fd,
                     const std::string& host, WarmSessions& warm)
    : session_(std::move(context), fd, host), warm_(warm) {
  session_.KeepBuffers();
}

Socket& Socket::operator=(Socket&& other) noexcept {
  Close();
  fd_ = std::exchange(other.fd_, -1);
  tls_ = std::move(other.tls_);
  return *this;
}

void Socket::UseTls(std::shared_ptr<const http::TlsContext> context, const std::string& host,
                    WarmSessions& warm) {
  tls_ = std::make_unique<TlsSocket>(std::move(context), fd_, host, warm);
}

Io Socket::Handshake() {
  if (!tls_) return Io::kDone;
  switch (tls_->Use().Handshake()) {
    case http::TlsSession::Step::kDone:
      return Io::kDone;
    case http::TlsSession::Step::kWantRead:
    case http::TlsSession::Step::kWantWrite:
      return Io::kAgain;
    default:
      return Io::kError;
  }
}

Io Socket::Receive(char* to, size_t room, size_t* got) {
  *got = 0;
  if (tls_) {
    switch (tls_->Use().Read(to, room, got)) {
      case http::TlsSession::Step::kDone:
        return Io::kDone;
      case http::TlsSession::Step::kEnd:
        return Io::kEnd;
      case http::TlsSession::Step::kFailed:
        return Io::kError;
      default:
        return Io::kAgain;
    }
  }
  while (true) {
    const ssize_t n = ::recv(fd_, to, room, 0);
    if (n > 0) {
      *got = static_cast<size_t>(n);
      return Io::kDone;
    }
    if (n == 0) return Io::kEnd;
    if (errno != EINTR) return FromErrno();
  }
}

Io Socket::Send(iovec* parts, size_t count, char* scratch, size_t* sent) {
  *sent = 0;
  while (count > 0) {
    ssize_t n;
    if (tls_) {
      n = tls_->Use().Write(Gather(parts, count, scratch));
    } else {
      msghdr message{};
      message.msg_iov = parts;
      message.msg_iovlen = std::min<size_t>(count, 1024);
      n = ::sendmsg(fd_, &message, MSG_NOSIGNAL);
    }
    if (n < 0) {
      if (errno == EINTR) continue;
      return FromErrno();
    }
    *sent += static_cast<size_t>(n);
    Advance(parts, count, static_cast<size_t>(n));
  }
  return Io::kDone;
}

void Socket::ShutdownSend() {
  if (fd_ < 0) return;
  if (tls_) tls_->Use().Shutdown();
  ::shutdown(fd_, SHUT_WR);
}

void Socket::Close(bool reset) {
  if (fd_ < 0) return;
  if (reset) {
    const linger hard{1, 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
  }
  tls_.reset();
  ::close(std::exchange(fd_, -1));
}

int StartConnect(const Target& target) {
  const int fd = ::socket(target.v6() ? AF_INET6 : AF_INET,
                          SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);
  if (fd < 0) return -1;
  const int on = 1;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  ::setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  sockaddr_storage address;
  const socklen_t size = Fill(target, &address);
  if (::connect(fd, reinterpret_cast<const sockaddr*>(&address), size) == 0 ||
      errno == EINPROGRESS) {
    return fd;
  }
  const int error = errno;
  ::close(fd);
  errno = error;
  return -1;
}

int ConnectResult(int fd) {
  int error = 0;
  socklen_t size = sizeof error;
  return ::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 ? error : errno;
}

bool IsOurFault(int error) {
  return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM ||
         error == EADDRNOTAVAIL || error == EAGAIN || error == EAFNOSUPPORT || error == EACCES ||
         error == EPERM;
}

std::string PeerOf(int fd) {
  sockaddr_storage address;
  socklen_t size = sizeof address;
  if (::getpeername(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) return {};
  char text[INET6_ADDRSTRLEN] = "";
  if (address.ss_family == AF_INET6) {
    const auto& v6 = reinterpret_cast<const sockaddr_in6&>(address);
    ::inet_ntop(AF_INET6, &v6.sin6_addr, text, sizeof text);
    return "[" + std::string(text) + "]:" + std::to_string(ntohs(v6.sin6_port));
  }
  const auto& v4 = reinterpret_cast<const sockaddr_in&>(address);
  ::inet_ntop(AF_INET, &v4.sin_addr, text, sizeof text);
  return std::string(text) + ":" + std::to_string(ntohs(v4.sin_port));
}

}  // namespace llmd::relay
