#include "llmd/http/tls.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <sys/socket.h>

#include <cerrno>

#include "http/tls_session.h"

namespace llmd::http {
namespace {

template <auto Free>
struct Deleter {
  template <typename T>
  void operator()(T* object) const {
    Free(object);
  }
};
using Bio = std::unique_ptr<BIO, Deleter<BIO_free_all>>;
using Key = std::unique_ptr<EVP_PKEY, Deleter<EVP_PKEY_free>>;
using Cert = std::unique_ptr<X509, Deleter<X509_free>>;
using Context = std::unique_ptr<SSL_CTX, Deleter<SSL_CTX_free>>;

Status LastError(const char* what) {
  const unsigned long code = ERR_peek_last_error();
  ERR_clear_error();
  const char* reason = code != 0 ? ERR_reason_error_string(code) : nullptr;
  return InvalidArgument(std::string(what) + ": " + (reason ? reason : "malformed PEM"));
}

Bio View(const std::string& text) {
  return Bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

Status UseChain(SSL_CTX* context, const std::string& pem) {
  const Bio in = View(pem);
  const Cert leaf(PEM_read_bio_X509(in.get(), nullptr, nullptr, nullptr));
  if (!leaf || SSL_CTX_use_certificate(context, leaf.get()) != 1) return LastError("certificate");
  while (const Cert next{PEM_read_bio_X509(in.get(), nullptr, nullptr, nullptr)}) {
    if (SSL_CTX_add1_chain_cert(context, next.get()) != 1) return LastError("certificate chain");
  }
  ERR_clear_error();  // the end of the text is one
  return OkStatus();
}

Status UseKey(SSL_CTX* context, const std::string& pem) {
  const Key key(PEM_read_bio_PrivateKey(View(pem).get(), nullptr, nullptr, nullptr));
  if (!key || SSL_CTX_use_PrivateKey(context, key.get()) != 1) return LastError("private key");
  return OkStatus();
}

// Calls `also` with each certificate, which is then believed.
template <typename Also>
Status Believe(SSL_CTX* context, const std::string& pem, const char* what, Also also) {
  const Bio in = View(pem);
  int count = 0;
  while (const Cert next{PEM_read_bio_X509(in.get(), nullptr, nullptr, nullptr)}) {
    if (X509_STORE_add_cert(SSL_CTX_get_cert_store(context), next.get()) != 1 || !also(next.get()))
      return LastError(what);
    ++count;
  }
  if (count == 0) return LastError(what);
  ERR_clear_error();
  return OkStatus();
}

Status AskClients(SSL_CTX* context, const std::string& pem) {
  LLMD_RETURN_IF_ERROR(Believe(context, pem, "client authority", [&](X509* authority) {
    return SSL_CTX_add_client_CA(context, authority) == 1;
  }));
  SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  return OkStatus();
}

Status AskServers(SSL_CTX* context, const TlsClientOptions& options) {
  if (!options.verify) return OkStatus();
  SSL_CTX_set_verify(context, SSL_VERIFY_PEER, nullptr);
  if (!options.ca.empty())
    return Believe(context, options.ca, "authority", [](X509*) { return true; });
  return SSL_CTX_set_default_verify_paths(context) == 1 ? OkStatus() : LastError("authorities");
}

constexpr unsigned char kProtocols[] = "\x08http/1.1";  // each after its length

StatusOr<Context> NewContext(const SSL_METHOD* method) {
  Context context(SSL_CTX_new(method));
  if (!context) return LastError("TLS");
  SSL_CTX_set_min_proto_version(context.get(), TLS1_2_VERSION);
  SSL_CTX_set_mode(context.get(), SSL_MODE_ENABLE_PARTIAL_WRITE |
                                      SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                      SSL_MODE_RELEASE_BUFFERS);
  SSL_CTX_set_options(context.get(), SSL_OP_NO_RENEGOTIATION | SSL_OP_IGNORE_UNEXPECTED_EOF);
  SSL_CTX_set_session_cache_mode(context.get(), SSL_SESS_CACHE_OFF);
  return context;
}

// The name or address that the server's certificate must be made out to.
void Expect(SSL* session, const std::string& host) {
  X509_VERIFY_PARAM* param = SSL_get0_param(session);
  if (X509_VERIFY_PARAM_set1_ip_asc(param, host.c_str()) == 1) return;
  SSL_set_tlsext_host_name(session, host.c_str());
  X509_VERIFY_PARAM_set1_host(param, host.data(), host.size());
}

int ChooseProtocol(SSL*, const unsigned char** out, unsigned char* out_length,
                   const unsigned char* in, unsigned in_length, void*) {
  unsigned char* chosen = nullptr;
  if (SSL_select_next_proto(&chosen, out_length, kProtocols, sizeof(kProtocols) - 1, in,
                            in_length) != OPENSSL_NPN_NEGOTIATED)
    return SSL_TLSEXT_ERR_NOACK;
  *out = chosen;
  return SSL_TLSEXT_ERR_OK;
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

StatusOr<std::shared_ptr<const TlsContext>> TlsContext::Create(const TlsOptions& options) {
  LLMD_ASSIGN_OR_RETURN(Context context, NewContext(TLS_server_method()));
  SSL_CTX_set_alpn_select_cb(context.get(), ChooseProtocol, nullptr);
  LLMD_RETURN_IF_ERROR(UseChain(context.get(), options.chain));
  LLMD_RETURN_IF_ERROR(UseKey(context.get(), options.key));
  if (!options.client_ca.empty()) {
    LLMD_RETURN_IF_ERROR(AskClients(context.get(), options.client_ca));
  }
  return std::shared_ptr<const TlsContext>(new TlsContext(context.release(), false));
}

StatusOr<std::shared_ptr<const TlsContext>> TlsContext::CreateClient(
    const TlsClientOptions& options) {
  LLMD_ASSIGN_OR_RETURN(Context context, NewContext(TLS_client_method()));
  SSL_CTX_set_alpn_protos(context.get(), kProtocols, sizeof(kProtocols) - 1);
  LLMD_RETURN_IF_ERROR(AskServers(context.get(), options));
  if (!options.chain.empty()) {
    LLMD_RETURN_IF_ERROR(UseChain(context.get(), options.chain));
    LLMD_RETURN_IF_ERROR(UseKey(context.get(), options.key));
  }
  return std::shared_ptr<const TlsContext>(new TlsContext(context.release(), true));
}

TlsContext::~TlsContext() {
  SSL_CTX_free(static_cast<SSL_CTX*>(handle_));
}

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
  return Explain(SSL_do_handshake(SslOf(session_)));
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

}  // namespace llmd::http
