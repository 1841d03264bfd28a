// Blocking TLS ends for tests of the relay, over OpenSSL itself.
#pragma once

#include <openssl/ssl.h>

#include <algorithm>
#include <csignal>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "core/http/certificates.h"
#include "fixture.h"

namespace llmd::relay::testing {

inline X509* ReadCert(const std::string& pem) {
  BIO* in = BIO_new_mem_buf(pem.data(), -1);
  X509* cert = PEM_read_bio_X509(in, nullptr, nullptr, nullptr);
  BIO_free(in);
  return cert;
}

inline void Show(SSL_CTX* context, const http::TlsOptions& pair) {
  X509* cert = ReadCert(pair.chain);
  SSL_CTX_use_certificate(context, cert);
  X509_free(cert);
  BIO* in = BIO_new_mem_buf(pair.key.data(), -1);
  EVP_PKEY* key = PEM_read_bio_PrivateKey(in, nullptr, nullptr, nullptr);
  SSL_CTX_use_PrivateKey(context, key);
  EVP_PKEY_free(key);
  BIO_free(in);
}

// One side of a session over a connected socket.
class TlsEnd {
 public:
  TlsEnd(SSL_CTX* context, int fd) : session_(SSL_new(context)) {
    std::signal(SIGPIPE, SIG_IGN);  // OpenSSL's own sockets raise it
    SSL_set_fd(session_, fd);
    SSL_set_msg_callback(session_,
                         [](int write, int, int type, const void* data, size_t, SSL*, void* arg) {
                           // The header of a record that came: its type is the first byte, its
                           // length the last two.
                           const auto* head = static_cast<const uint8_t*>(data);
                           if (write != 0 || type != SSL3_RT_HEADER || head[0] != 23) return;
                           auto& self = *static_cast<TlsEnd*>(arg);
                           ++self.records_;
                           self.largest_ = std::max(self.largest_, head[3] * 256 + head[4]);
                         });
    SSL_set_msg_callback_arg(session_, this);
  }
  TlsEnd(const TlsEnd&) = delete;
  ~TlsEnd() { SSL_free(session_); }

  SSL* ssl() { return session_; }
  void Send(std::string_view bytes) {
    EXPECT_EQ(SSL_write(session_, bytes.data(), static_cast<int>(bytes.size())),
              static_cast<int>(bytes.size()));
  }
  std::string ReadUntil(std::string_view text) {
    std::string seen;
    char buffer[65536];
    while (seen.find(text) == std::string::npos) {
      const int n = SSL_read(session_, buffer, sizeof buffer);
      if (n <= 0) {
        ended_ = SSL_get_error(session_, n) == SSL_ERROR_ZERO_RETURN;
        break;
      }
      seen.append(buffer, static_cast<size_t>(n));
    }
    return seen;
  }
  std::string ReadToEnd() { return ReadUntil(std::string_view("\0never", 6)); }
  // The last read ended by the peer's close_notify.
  bool ended() const { return ended_; }
  int records() const { return records_; }  // of data, received
  int largest() const { return largest_; }  // bytes of the largest, as encrypted

 private:
  SSL* session_;
  int records_ = 0, largest_ = 0;
  bool ended_ = false;
};

// A client; Connect or a handshake of the test's own.
class TlsClient {
 public:
  explicit TlsClient(const http::TlsOptions* ours = nullptr)
      : context_(SSL_CTX_new(TLS_client_method())) {
    SSL_CTX_set_session_cache_mode(context_, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(context_, [](SSL* ssl, SSL_SESSION* ticket) {
      auto& self = *static_cast<TlsClient*>(SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl)));
      SSL_SESSION_free(std::exchange(self.ticket_, ticket));
      return 1;
    });
    SSL_CTX_set_app_data(context_, this);
    if (ours != nullptr) Show(context_, *ours);
  }
  explicit TlsClient(uint16_t port) : TlsClient() { EXPECT_TRUE(Connect(port)); }
  ~TlsClient() {
    Leave();
    SSL_SESSION_free(ticket_);
    SSL_CTX_free(context_);
  }
  SSL_CTX* context() { return context_; }
  TlsEnd& end() { return *end_; }
  int fd() const { return fd_; }
  void Send(std::string_view bytes) { end_->Send(bytes); }
  std::string ReadUntil(std::string_view text) { return end_->ReadUntil(text); }
  std::string ReadToEnd() { return end_->ReadToEnd(); }
  std::string Ask(std::string_view bytes) {
    Send(bytes);
    return ReadToEnd();
  }

  // Without a handshake. With `resume` the last ticket is shown.
  void Open(uint16_t port, bool resume = false) {
    Leave();
    fd_ = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    const timeval limit{10, 0};
    setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    end_ = std::make_unique<TlsEnd>(context_, fd_);
    if (resume && ticket_ != nullptr) SSL_set_session(end_->ssl(), ticket_);
  }
  bool Connect(uint16_t port, bool resume = false) {
    Open(port, resume);
    return SSL_connect(end_->ssl()) == 1;
  }
  // Without a close_notify, but OpenSSL would take the ticket for spent if it knew.
  void Leave() {
    if (end_) SSL_set_shutdown(end_->ssl(), SSL_SENT_SHUTDOWN);
    end_.reset();
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  }

 private:
  SSL_CTX* context_;
  SSL_SESSION* ticket_ = nullptr;
  int fd_ = -1;
  std::unique_ptr<TlsEnd> end_;
};

// A server that does what a script says with each session. `ask` = clients must show that
// certificate.
class TlsPeer {
 public:
  using Script = std::function<void(TlsEnd& end, RawSocket& socket, int n)>;
  TlsPeer(const http::TlsOptions& pair, int connections, Script script,
          const http::TlsOptions* ask = nullptr)
      : context_(SSL_CTX_new(TLS_server_method())) {
    Show(context_, pair);
    if (ask != nullptr) {
      X509* cert = ReadCert(ask->chain);
      X509_STORE_add_cert(SSL_CTX_get_cert_store(context_), cert);
      X509_free(cert);
      SSL_CTX_set_verify(context_, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
    }
    peer_ = std::make_unique<ScriptedPeer>(
        connections, [this, script = std::move(script)](RawSocket& socket, int n) {
          TlsEnd end(context_, socket.fd());
          if (SSL_accept(end.ssl()) == 1) script(end, socket, n);
        });
  }
  ~TlsPeer() {
    peer_.reset();
    SSL_CTX_free(context_);
  }
  uint16_t port() const { return peer_->port(); }

 private:
  SSL_CTX* context_;
  std::unique_ptr<ScriptedPeer> peer_;
};

// Reads one request without a body.
inline std::string ReadRequest(TlsEnd& end) {
  return end.ReadUntil("\r\n\r\n");
}

}  // namespace llmd::relay::testing
