// One TLS session over a non-blocking socket, on the side its context is for. For the loop thread.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "llmd/http/tls.h"

namespace llmd::http {

class TlsSession {
 public:
  // The descriptor stays the caller's. `host`: whom a client wants to reach.
  TlsSession(std::shared_ptr<const TlsContext> context, int fd, const std::string& host);
  ~TlsSession();

  enum class Step { kDone, kWantRead, kWantWrite, kEnd, kFailed };
  Step Handshake();
  // Up to `room` bytes. kEnd when the peer said that it ends. For a server it is an end too when
  // only the transport ended, since requests end by their framing; for a client that is kFailed.
  Step Read(char* to, size_t room, size_t* bytes);
  // As ::send: the bytes taken, or -1 with errno (EAGAIN: call again with the same bytes).
  ssize_t Write(std::string_view bytes);
  // Decrypted bytes that Read would give at once.
  bool pending() const;
  // Tells the peer that no more comes.
  void Shutdown();
  // Why Handshake failed.
  std::string failure() const;
  // Handshake failed, since the peer began an HTTP request in clear text.
  bool spoke_clear() const { return spoke_clear_; }
  // The subject of the peer's verified certificate as RFC 2253 writes it, at most 256 bytes;
  // without one its first alternative name; "" = it showed none, or was not asked.
  std::string peer_subject() const;

  // Buffers (34 KB) are given back after each read and write, unless they are kept: then as long as
  // no ReleaseBuffers is called while no record is under way.
  void KeepBuffers();
  void ReleaseBuffers();

 private:
  Step Explain(int result);

  const std::shared_ptr<const TlsContext> context_;
  int fd_;
  bool spoke_clear_ = false;
  void* const session_;
};

}  // namespace llmd::http
