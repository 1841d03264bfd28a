// TLS for servers and clients of either kind (http::Server, http::Client, relay::Relay): what is
// shown and asked for in a handshake. TLS 1.2 or newer, AEAD suites alone, HTTP/1.1 by ALPN.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "llmd/status.h"

namespace llmd::http {

// Of a server. Clients may resume their sessions (by tickets, for two hours); a new context takes
// no tickets of another.
struct TlsOptions {
  std::string chain, key;   // PEM
  std::string client_ca;    // PEM; "" = clients need no certificate
  bool tls13_only = false;  // else TLS 1.2 too
  std::string ciphers;      // of TLS 1.2, OpenSSL's names between colons; "" = all that are AEAD
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
  // INVALID_ARGUMENT when the PEM cannot be read, the key is not the certificate's, or a suite is
  // unknown or no AEAD.
  static StatusOr<std::shared_ptr<const TlsContext>> Create(const TlsOptions& options);
  static StatusOr<std::shared_ptr<const TlsContext>> CreateClient(const TlsClientOptions& options);
  // Whether they may stand in TlsOptions::ciphers.
  static Status CheckSuites(const std::string& ciphers);
  ~TlsContext();

  void* handle() const { return handle_; }  // the library's own object
  bool client() const { return client_; }

 private:
  TlsContext(void* handle, bool client) : handle_(handle), client_(client) {}
  void* const handle_;
  const bool client_;
};

// Asked again and again, from any loop thread, so that a certificate may change meanwhile; never
// null, does not block.
using TlsProvider = std::function<std::shared_ptr<const TlsContext>()>;

}  // namespace llmd::http
