#include "http/tls_session.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

namespace llmd::http {
namespace {

constexpr size_t kMaxSubject = 256;

template <auto Free>
struct Deleter {
  template <typename T>
  void operator()(T* object) const {
    Free(object);
  }
};
using Bio = std::unique_ptr<BIO, Deleter<BIO_free_all>>;
using Cert = std::unique_ptr<X509, Deleter<X509_free>>;
using Names = std::unique_ptr<GENERAL_NAMES, Deleter<GENERAL_NAMES_free>>;

void PrintAlternative(BIO* out, X509* cert) {
  const Names names(
      static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(cert, NID_subject_alt_name, nullptr, nullptr)));
  if (names && sk_GENERAL_NAME_num(names.get()) > 0)
    GENERAL_NAME_print(out, sk_GENERAL_NAME_value(names.get(), 0));
}

// The name or address that the server's certificate must be made out to.
void Expect(SSL* session, const std::string& host) {
  X509_VERIFY_PARAM* param = SSL_get0_param(session);
  if (X509_VERIFY_PARAM_set1_ip_asc(param, host.c_str()) == 1) return;
  SSL_set_tlsext_host_name(session, host.c_str());
  X509_VERIFY_PARAM_set1_host(param, host.data(), host.size());
}

// The library's socket I/O raises SIGPIPE; ours does not.
int SocketOf(BIO* bio) {
  return *static_cast<const int*>(BIO_get_data(bio));
}
int Send(BIO* bio, const char* data, int size) {
  BIO_clear_retry_flags(bio);
  const ssize_t sent =
      ::send(SocketOf(bio), data, static_cast<size_t>(size), MSG_NOSIGNAL | MSG_DONTWAIT);
  if (sent < 0 && (errno == EAGAIN || errno == EINTR)) BIO_set_retry_write(bio);
  return static_cast<int>(sent);
}
int Receive(BIO* bio, char* data, int size) {
  BIO_clear_retry_flags(bio);
  const ssize_t got = ::recv(SocketOf(bio), data, static_cast<size_t>(size), MSG_DONTWAIT);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) BIO_set_retry_read(bio);
  if (got == 0) BIO_set_flags(bio, BIO_FLAGS_IN_EOF);
  return static_cast<int>(got);
}
long Control(BIO* bio, int command, long, void*) {
  if (command == BIO_CTRL_EOF) return BIO_test_flags(bio, BIO_FLAGS_IN_EOF) != 0 ? 1 : 0;
  return command == BIO_CTRL_FLUSH ? 1 : 0;
}

BIO_METHOD* SocketMethod() {
  static BIO_METHOD* const method = [] {
    BIO_METHOD* made = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "llmd socket");
    BIO_meth_set_write(made, Send);
    BIO_meth_set_read(made, Receive);
    BIO_meth_set_ctrl(made, Control);
    return made;
  }();
  return method;
}

SSL* SslOf(void* session) {
  return static_cast<SSL*>(session);
}

}  // namespace

TlsSession::TlsSession(std::shared_ptr<const TlsContext> context, int fd, const std::string& host)
    : context_(std::move(context)),
      fd_(fd),
      session_(SSL_new(static_cast<SSL_CTX*>(context_->handle()))) {
  LLMD_CHECK(session_ != nullptr);
  BIO* bio = BIO_new(SocketMethod());
  LLMD_CHECK(bio != nullptr);
  BIO_set_data(bio, &fd_);
  BIO_set_init(bio, 1);
  SSL_set_bio(SslOf(session_), bio, bio);
  if (!context_->client()) {
    SSL_set_accept_state(SslOf(session_));
    return;
  }
  SSL_set_connect_state(SslOf(session_));
  Expect(SslOf(session_), host);
}

TlsSession::~TlsSession() {
  SSL_free(SslOf(session_));
}

TlsSession::Step TlsSession::Explain(int result) {
  switch (SSL_get_error(SslOf(session_), result)) {
    case SSL_ERROR_NONE:
      return Step::kDone;
    case SSL_ERROR_WANT_READ:
      return Step::kWantRead;
    case SSL_ERROR_WANT_WRITE:
      return Step::kWantWrite;
    case SSL_ERROR_ZERO_RETURN:
      return Step::kEnd;
    default:
      return Step::kFailed;
  }
}

TlsSession::Step TlsSession::Handshake() {
  ERR_clear_error();
  const Step step = Explain(SSL_do_handshake(SslOf(session_)));
  spoke_clear_ = ERR_GET_REASON(ERR_peek_error()) == SSL_R_HTTP_REQUEST;
  return step;
}

TlsSession::Step TlsSession::Read(char* to, size_t room, size_t* bytes) {
  ERR_clear_error();
  return Explain(SSL_read_ex(SslOf(session_), to, room, bytes));
}

ssize_t TlsSession::Write(std::string_view bytes) {
  ERR_clear_error();
  size_t taken = 0;
  const Step step = Explain(SSL_write_ex(SslOf(session_), bytes.data(), bytes.size(), &taken));
  if (step == Step::kDone) return static_cast<ssize_t>(taken);
  errno = step == Step::kWantWrite || step == Step::kWantRead ? EAGAIN : EPIPE;
  return -1;
}

bool TlsSession::pending() const {
  return SSL_pending(SslOf(session_)) > 0;
}

void TlsSession::Shutdown() {
  ERR_clear_error();
  SSL_shutdown(SslOf(session_));
  ERR_clear_error();
}

std::string TlsSession::failure() const {
  const bool verified = (SSL_get_verify_mode(SslOf(session_)) & SSL_VERIFY_PEER) != 0;
  const long verdict = SSL_get_verify_result(SslOf(session_));
  if (verified && verdict != X509_V_OK)
    return std::string("the peer's certificate: ") + X509_verify_cert_error_string(verdict);
  const unsigned long code = ERR_peek_last_error();
  const char* reason = code != 0 ? ERR_reason_error_string(code) : nullptr;
  return reason != nullptr ? reason : "the peer left";
}

std::string TlsSession::peer_subject() const {
  if ((SSL_get_verify_mode(SslOf(session_)) & SSL_VERIFY_PEER) == 0) return {};
  const Cert cert(SSL_get1_peer_certificate(SslOf(session_)));
  if (!cert) return {};
  const Bio out(BIO_new(BIO_s_mem()));
  X509_NAME_print_ex(out.get(), X509_get_subject_name(cert.get()), 0, XN_FLAG_RFC2253);
  if (BIO_pending(out.get()) == 0) PrintAlternative(out.get(), cert.get());
  char* text = nullptr;
  const long size = BIO_get_mem_data(out.get(), &text);
  return {text, std::min(static_cast<size_t>(size), kMaxSubject)};
}

void TlsSession::KeepBuffers() {
  SSL_clear_mode(SslOf(session_), SSL_MODE_RELEASE_BUFFERS);
}

void TlsSession::ReleaseBuffers() {
  (void)SSL_free_buffers(SslOf(session_));  // refuses while a record is under way
}

}  // namespace llmd::http
