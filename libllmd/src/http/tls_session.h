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
  // Up to `room` bytes. kEnd when the peer said that it ends.
  Step Read(char* to, size_t room, size_t* bytes);
  // As ::send: the bytes taken, or -1 with errno (EAGAIN: call again with the same bytes).
  ssize_t Write(std::string_view bytes);
  // Decrypted bytes that Read would give at once.
  bool pending() const;
  // Tells the peer that no more comes.
  void Shutdown();
  // Why Handshake failed.
  std::string failure() const;

 private:
  Step Explain(int result);

  const std::shared_ptr<const TlsContext> context_;
  int fd_;
  void* const session_;
};

}  // namespace llmd::http
