#include "transfer/socket.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>

namespace llmd::kv {
namespace {

struct AddressList {
  ~AddressList() {
    if (head != nullptr) freeaddrinfo(head);
  }
  addrinfo* head = nullptr;
};

std::string Join(const std::string& host, uint16_t port) {
  return host + ":" + std::to_string(port);
}

Status Resolve(const std::string& host, uint16_t port, int flags, AddressList* out) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags | AI_NUMERICSERV;
  const int code = getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &out->head);
  if (code == 0) return OkStatus();
  return Unavailable("resolve " + host + ": " + gai_strerror(code));
}

StatusOr<sockaddr_un> AbstractAddress(const std::string& name, socklen_t* length) {
  sockaddr_un address{};
  if (name.size() + 1 > sizeof(address.sun_path))
    return InvalidArgument("socket name '" + name + "' is too long");
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path + 1, name.data(), name.size());
  *length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
  return address;
}

Status FinishConnect(int fd, const Wait& wait, const std::string& what) {
  LLMD_RETURN_IF_ERROR(WaitFor(fd, POLLOUT, wait, what));
  int error = 0;
  socklen_t size = sizeof(error);
  getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
  return error == 0 ? OkStatus() : Unavailable(what + ": " + std::strerror(error));
}

// What a failed read or write means; ok = try again after waiting.
Status IoError(int error, std::string_view what) {
  if (error == EAGAIN || error == EINTR) return OkStatus();
  return Unavailable(std::string(what) + ": " + std::strerror(error));
}

void DropFront(std::span<iovec>& parts, size_t bytes) {
  while (!parts.empty() && bytes >= parts.front().iov_len) {
    bytes -= parts.front().iov_len;
    parts = parts.subspan(1);
  }
  if (parts.empty()) return;
  parts.front().iov_base = static_cast<char*>(parts.front().iov_base) + bytes;
  parts.front().iov_len -= bytes;
}

}  // namespace

UniqueFd& UniqueFd::operator=(UniqueFd&& other) noexcept {
  if (this != &other) {
    Reset();
    fd_ = std::exchange(other.fd_, -1);
  }
  return *this;
}

void UniqueFd::Reset() {
  if (fd_ >= 0) close(fd_);
  fd_ = -1;
}

StopEvent::StopEvent() : fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  LLMD_CHECK(fd_.ok());
}

void StopEvent::Set() {
  const uint64_t one = 1;
  LLMD_CHECK(write(fd_.get(), &one, sizeof(one)) == sizeof(one));
}

bool StopEvent::IsSet() const {
  pollfd poll_fd{fd_.get(), POLLIN, 0};
  return poll(&poll_fd, 1, 0) == 1;
}

Status WaitFor(int fd, short events, const Wait& wait, std::string_view what) {
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(wait.deadline -
                                                                   std::chrono::steady_clock::now())
                          .count();
    pollfd fds[2] = {{fd, events, 0}, {wait.stop != nullptr ? wait.stop->fd() : -1, POLLIN, 0}};
    const int ready = poll(fds, 2, static_cast<int>(std::clamp<int64_t>(left, 0, INT_MAX)));
    if (ready < 0 && errno != EINTR) return ErrnoStatus(errno, "poll");
    if (ready > 0 && fds[1].revents != 0) return Cancelled(std::string(what) + ": stopped");
    if (ready > 0 && fds[0].revents != 0) return OkStatus();
    if (left <= 0) return DeadlineExceeded(std::string(what) + ": no answer in time");
  }
}

StatusOr<UniqueFd> ListenTcp(const std::string& host, uint16_t port, uint16_t* bound_port) {
  AddressList list;
  LLMD_RETURN_IF_ERROR(Resolve(host, port, AI_PASSIVE, &list));
  UniqueFd fd(socket(list.head->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.ok()) return ErrnoStatus(errno, "socket");
  const int one = 1;
  setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
  if (bind(fd.get(), list.head->ai_addr, list.head->ai_addrlen) != 0 ||
      listen(fd.get(), 128) != 0) {
    if (errno == EADDRINUSE)
      return AlreadyExists("KV transfer address " + Join(host, port) + " is already in use");
    return ErrnoStatus(errno, "listen on " + Join(host, port));
  }
  sockaddr_storage bound{};
  socklen_t size = sizeof(bound);
  getsockname(fd.get(), reinterpret_cast<sockaddr*>(&bound), &size);
  *bound_port = ntohs(bound.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6&>(bound).sin6_port
                                                  : reinterpret_cast<sockaddr_in&>(bound).sin_port);
  return fd;
}

StatusOr<UniqueFd> ListenAbstract(const std::string& name) {
  socklen_t length = 0;
  LLMD_ASSIGN_OR_RETURN(const sockaddr_un address, AbstractAddress(name, &length));
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.ok()) return ErrnoStatus(errno, "socket");
  if (bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), length) != 0 ||
      listen(fd.get(), 128) != 0) {
    if (errno == EADDRINUSE)
      return AlreadyExists("Unix socket @" + name +
                           " is already in use: another engine has this id");
    return ErrnoStatus(errno, "listen on @" + name);
  }
  return fd;
}

StatusOr<UniqueFd> ConnectTcp(const std::string& host, uint16_t port, Duration user_timeout,
                              const Wait& wait) {
  AddressList list;
  LLMD_RETURN_IF_ERROR(Resolve(host, port, 0, &list));
  const std::string what = "connect " + Join(host, port);
  Status last = Unavailable(what + ": no address");
  for (const addrinfo* a = list.head; a != nullptr; a = a->ai_next) {
    UniqueFd fd(socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!fd.ok()) return ErrnoStatus(errno, "socket");
    TuneTcp(fd.get(), user_timeout);
    if (connect(fd.get(), a->ai_addr, a->ai_addrlen) == 0) return fd;
    last = errno == EINPROGRESS ? FinishConnect(fd.get(), wait, what)
                                : Unavailable(what + ": " + std::strerror(errno));
    if (last.ok()) return fd;
    if (last.code() != StatusCode::kUnavailable) return last;
  }
  return last;
}

StatusOr<UniqueFd> ConnectAbstract(const std::string& name) {
  socklen_t length = 0;
  LLMD_ASSIGN_OR_RETURN(const sockaddr_un address, AbstractAddress(name, &length));
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.ok()) return ErrnoStatus(errno, "socket");
  // A full backlog is EAGAIN here and cannot be polled for; the caller takes it as "not now".
  if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), length) == 0) return fd;
  if (errno == ECONNREFUSED || errno == ENOENT) return NotFound("nobody listens on @" + name);
  return Unavailable("connect @" + name + ": " + std::strerror(errno));
}

void TuneTcp(int fd, Duration user_timeout) {
  const int one = 1;
  const auto timeout_ms = static_cast<unsigned>(
      std::chrono::duration_cast<std::chrono::milliseconds>(user_timeout).count());
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
  setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
  setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_ms, sizeof(timeout_ms));
}

Status CheckPeerUser(int fd) {
  ucred peer{};
  socklen_t size = sizeof(peer);
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0)
    return ErrnoStatus(errno, "SO_PEERCRED");
  if (peer.uid == geteuid() || peer.uid == 0 || geteuid() == 0) return OkStatus();
  return PermissionDenied("KV peer runs as user " + std::to_string(peer.uid) + ", this engine as " +
                          std::to_string(geteuid()));
}

Status SendAll(int fd, std::string_view bytes, const Wait& wait) {
  while (!bytes.empty()) {
    const ssize_t sent = send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent > 0) {
      bytes.remove_prefix(static_cast<size_t>(sent));
      continue;
    }
    LLMD_RETURN_IF_ERROR(IoError(errno, "send to KV peer"));
    LLMD_RETURN_IF_ERROR(WaitFor(fd, POLLOUT, wait, "send to KV peer"));
  }
  return OkStatus();
}

Status ReceiveAll(int fd, std::span<iovec> parts, const Wait& wait) {
  while (!parts.empty()) {
    const auto count = static_cast<int>(std::min<size_t>(parts.size(), 64));
    const ssize_t got = readv(fd, parts.data(), count);
    if (got > 0) {
      DropFront(parts, static_cast<size_t>(got));
      continue;
    }
    if (got == 0) return Unavailable("KV peer closed the connection");
    LLMD_RETURN_IF_ERROR(IoError(errno, "receive from KV peer"));
    LLMD_RETURN_IF_ERROR(WaitFor(fd, POLLIN, wait, "receive from KV peer"));
  }
  return OkStatus();
}

Status ReceiveAll(int fd, std::span<uint8_t> out, const Wait& wait) {
  if (out.empty()) return OkStatus();
  iovec part{out.data(), out.size()};
  return ReceiveAll(fd, std::span<iovec>(&part, 1), wait);
}

Status ReceiveWithFd(int fd, std::span<uint8_t> out, UniqueFd* passed, const Wait& wait) {
  for (;;) {
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    iovec part{out.data(), out.size()};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    const ssize_t got = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
    if (got == 0) return Unavailable("KV peer closed the connection");
    if (got < 0) {
      LLMD_RETURN_IF_ERROR(IoError(errno, "receive from KV peer"));
      LLMD_RETURN_IF_ERROR(WaitFor(fd, POLLIN, wait, "receive from KV peer"));
      continue;
    }
    // One more than was asked for: the kernel has room for two where one is aligned.
    for (const cmsghdr* head = CMSG_FIRSTHDR(&message); head != nullptr;
         head = CMSG_NXTHDR(&message, const_cast<cmsghdr*>(head))) {
      if (head->cmsg_level != SOL_SOCKET || head->cmsg_type != SCM_RIGHTS) continue;
      const size_t count = (head->cmsg_len - CMSG_LEN(0)) / sizeof(int);
      for (size_t i = 0; i < count; ++i) {
        int received = -1;
        std::memcpy(&received, CMSG_DATA(head) + i * sizeof(int), sizeof(received));
        UniqueFd owned(received);
        if (!passed->ok()) *passed = std::move(owned);
      }
    }
    return ReceiveAll(fd, out.subspan(static_cast<size_t>(got)), wait);
  }
}

ssize_t SendWithFd(int fd, std::string_view bytes, int passed) {
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  iovec part{const_cast<char*>(bytes.data()), bytes.size()};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  cmsghdr* head = CMSG_FIRSTHDR(&message);
  head->cmsg_level = SOL_SOCKET;
  head->cmsg_type = SCM_RIGHTS;
  head->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(head), &passed, sizeof(passed));
  return sendmsg(fd, &message, MSG_NOSIGNAL);
}

}  // namespace llmd::kv
