// TLS for an http::Server: what it shows and asks for in a handshake. TLS 1.2 or newer, HTTP/1.1.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "llmd/status.h"

namespace llmd::http {

struct TlsOptions {
  std::string chain, key;  // PEM
  std::string client_ca;   // PEM; "" = clients need no certificate
};

// Immutable, thread-safe.
class TlsContext {
 public:
  // INVALID_ARGUMENT when the PEM cannot be read or the key is not the certificate's.
  static StatusOr<std::shared_ptr<const TlsContext>> Create(const TlsOptions& options);
  ~TlsContext();

  void* handle() const { return handle_; }  // the library's own object

 private:
  explicit TlsContext(void* handle) : handle_(handle) {}
  void* const handle_;
};

// Asked at each new connection, from any loop thread, so that a certificate may change meanwhile;
// never null.
using TlsProvider = std::function<std::shared_ptr<const TlsContext>()>;

}  // namespace llmd::http
