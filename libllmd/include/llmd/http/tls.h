// TLS for an http::Server or a Client: what it shows and asks for in a handshake. TLS 1.2 or newer,
// HTTP/1.1.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "llmd/status.h"

namespace llmd::http {

// Of a server.
struct TlsOptions {
  std::string chain, key;  // PEM
  std::string client_ca;   // PEM; "" = clients need no certificate
};

// Of a client.
struct TlsClientOptions {
  bool verify = true;      // the server's certificate and that it is made out to the host asked
  std::string ca;          // PEM of whom to believe; "" = whom the system believes
  std::string chain, key;  // PEM; "" = no certificate is shown
};

// Immutable, thread-safe.
class TlsContext {
 public:
  // INVALID_ARGUMENT when the PEM cannot be read or the key is not the certificate's.
  static StatusOr<std::shared_ptr<const TlsContext>> Create(const TlsOptions& options);
  static StatusOr<std::shared_ptr<const TlsContext>> CreateClient(const TlsClientOptions& options);
  ~TlsContext();

  void* handle() const { return handle_; }  // the library's own object
  bool client() const { return client_; }

 private:
  TlsContext(void* handle, bool client) : handle_(handle), client_(client) {}
  void* const handle_;
  const bool client_;
};

// Asked at each new connection, from any loop thread, so that a certificate may change meanwhile;
// never null.
using TlsProvider = std::function<std::shared_ptr<const TlsContext>()>;

}  // namespace llmd::http
