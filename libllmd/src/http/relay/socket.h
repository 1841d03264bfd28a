// One non-blocking TCP socket, in clear text or with a TLS session over it. Loop thread only.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "http/tls_session.h"
#include "llmd/http/relay/target.h"

namespace llmd::relay {

enum class Io { kDone, kAgain, kEnd, kError };

class TlsSocket;

// TLS sessions with buffers in hand. What reads or writes again and again keeps them; what was
// silent from one Cool to the next gives them back.
class WarmSessions {
 public:
  void Touch(TlsSocket& session);
  void Remove(TlsSocket& session);
  void Cool();
  size_t size() const { return warm_.size(); }

 private:
  std::vector<TlsSocket*> warm_;
};

// A session, and its place among the warm ones.
class TlsSocket {
 public:
  TlsSocket(std::shared_ptr<const http::TlsContext> context, int fd, const std::string& host,
            WarmSessions& warm);
  TlsSocket(const TlsSocket&) = delete;
  TlsSocket& operator=(const TlsSocket&) = delete;
  ~TlsSocket() { warm_.Remove(*this); }
  // To read or write with.
  http::TlsSession& Use() {
    warm_.Touch(*this);
    return session_;
  }
  const http::TlsSession& session() const { return session_; }

 private:
  friend class WarmSessions;
  static constexpr size_t kCold = ~size_t{0};
  http::TlsSession session_;
  WarmSessions& warm_;
  size_t slot_ = kCold;
  bool used_ = false;
};

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
  // `warm` outlives the session.
  void UseTls(std::shared_ptr<const http::TlsContext> context, const std::string& host,
              WarmSessions& warm);
  // Back to clear text, after a handshake that failed.
  void DropTls() { tls_.reset(); }
  // kDone at once in clear text.
  Io Handshake();
  std::string TlsFailure() const { return tls_ ? tls_->session().failure() : std::string(); }
  bool spoke_clear() const { return tls_ && tls_->session().spoke_clear(); }
  std::string PeerSubject() const { return tls_ ? tls_->session().peer_subject() : std::string(); }
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
  std::unique_ptr<TlsSocket> tls_;
};

// A socket whose connect is under way, or -1 with errno.
int StartConnect(const Target& target);
// 0 or the errno with which it failed.
int ConnectResult(int fd);
// How many bytes the other side's system has acknowledged since the connection was made (the
// connect itself counts as one); nothing where the system does not say.
std::optional<uint64_t> AckedBytes(int fd);
// Whether that is a failure of this process or machine, not of the peer.
bool IsOurFault(int error);
// "ip:port" of the other side; "" when it has gone.
std::string PeerOf(int fd);

}  // namespace llmd::relay
