// Sockets with deadlines: every wait ends at a time point or when the stop event fires. Linux only.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "llmd/clock.h"
#include "llmd/status.h"

namespace llmd::kv {

// Owns a file descriptor.
class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept;
  ~UniqueFd() { Reset(); }
  void Reset();
  int get() const { return fd_; }
  bool ok() const { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

// Wakes every wait that watches it, for good. Thread-safe.
class StopEvent {
 public:
  StopEvent();
  void Set();
  bool IsSet() const;
  int fd() const { return fd_.get(); }

 private:
  UniqueFd fd_;
};

// DEADLINE_EXCEEDED, or CANCELLED when `stop` is set. Real time: sockets do not follow a fake
// clock.
struct Wait {
  const StopEvent* stop = nullptr;
  std::chrono::steady_clock::time_point deadline;
};
Status WaitFor(int fd, short events, const Wait& wait, std::string_view what);

// Listening sockets, non-blocking. ALREADY_EXISTS naming the address when in use.
StatusOr<UniqueFd> ListenTcp(const std::string& host, uint16_t port, uint16_t* bound_port);
StatusOr<UniqueFd> ListenAbstract(const std::string& name);

// Connected, non-blocking sockets. UNAVAILABLE "connect host:port: …".
StatusOr<UniqueFd> ConnectTcp(const std::string& host, uint16_t port, Duration user_timeout,
                              const Wait& wait);
// NOT_FOUND when nobody listens under that name.
StatusOr<UniqueFd> ConnectAbstract(const std::string& name);

// TCP_NODELAY, keepalive and TCP_USER_TIMEOUT, so that a silent peer is an error and not a wait.
void TuneTcp(int fd, Duration user_timeout);
// PERMISSION_DENIED unless the other end of a Unix socket runs as our user or root.
Status CheckPeerUser(int fd);

Status SendAll(int fd, std::string_view bytes, const Wait& wait);
Status ReceiveAll(int fd, std::span<uint8_t> out, const Wait& wait);
// Scatter; consumes `parts`.
Status ReceiveAll(int fd, std::span<iovec> parts, const Wait& wait);
// As ReceiveAll, and takes the descriptor that came with the first byte, if any.
Status ReceiveWithFd(int fd, std::span<uint8_t> out, UniqueFd* passed, const Wait& wait);
// One non-blocking sendmsg that passes `passed` along; bytes sent or -1 with errno.
ssize_t SendWithFd(int fd, std::string_view bytes, int passed);

}  // namespace llmd::kv
