// One non-blocking TCP socket, in clear text or with a TLS session over it. Loop thread only.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "http/tls_session.h"
#include "llmd/http/relay/target.h"

namespace llmd::relay {

enum class Io { kDone, kAgain, kEnd, kError };

class Socket {
 public:
  Socket() = default;
  explicit Socket(int fd) : fd_(fd) {}
  Socket(Socket&& other) noexcept { *this = std::move(other); }
  Socket& operator=(Socket&& other) noexcept;
  ~Socket() { Close(); }

  bool open() const { return fd_ >= 0; }
  int fd() const { return fd_; }
  bool tls() const { return tls_ != nullptr; }
  void UseTls(std::shared_ptr<const http::TlsContext> context, const std::string& host);
  // kDone at once in clear text.
  Io Handshake();
  std::string TlsFailure() const { return tls_ ? tls_->failure() : std::string(); }
  Io Receive(char* to, size_t room, size_t* got);
  // Whether a receive that filled less than its room has taken all there was.
  bool short_read_is_all() const { return tls_ == nullptr; }
  // Takes what it can of all parts; `scratch` of kRecordBytes gathers them into TLS records.
  static constexpr size_t kRecordBytes = 16 * 1024;
  Io Send(iovec* parts, size_t count, char* scratch, size_t* sent);
  void ShutdownSend();
  // With `reset` the peer gets a RST.
  void Close(bool reset = false);

 private:
  int fd_ = -1;
  std::unique_ptr<http::TlsSession> tls_;
};

// A socket whose connect is under way, or -1 with errno.
int StartConnect(const Target& target);
// 0 or the errno with which it failed.
int ConnectResult(int fd);
// Whether that is a failure of this process or machine, not of the peer.
bool IsOurFault(int error);
// "ip:port" of the other side; "" when it has gone.
std::string PeerOf(int fd);

}  // namespace llmd::relay
