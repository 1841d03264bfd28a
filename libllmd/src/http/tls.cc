#include "llmd/http/tls.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>

#include <algorithm>
#include <string_view>

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

constexpr char kSuites[] = "ECDHE+AESGCM:ECDHE+CHACHA20";
// Where clients must show certificates no session is resumed without a name.
constexpr unsigned char kSessions[] = "llmd";
constexpr unsigned char kProtocols[] = "\x08http/1.1";  // each after its length

StatusOr<Context> NewContext(const SSL_METHOD* method) {
  Context context(SSL_CTX_new(method));
  if (!context) return LastError("TLS");
  SSL_CTX_set_min_proto_version(context.get(), TLS1_2_VERSION);
  SSL_CTX_set_mode(context.get(), SSL_MODE_ENABLE_PARTIAL_WRITE |
                                      SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                      SSL_MODE_RELEASE_BUFFERS);
  SSL_CTX_set_options(context.get(), SSL_OP_NO_RENEGOTIATION);
  SSL_CTX_set_session_cache_mode(context.get(), SSL_SESS_CACHE_OFF);
  if (SSL_CTX_set_cipher_list(context.get(), kSuites) != 1) return LastError("suites");
  return context;
}

// A name of TLS 1.2; those of 1.3, which the list holds in any case, are AEAD all.
Status CheckSuite(SSL_CTX* context, const std::string& name) {
  if (SSL_CTX_set_cipher_list(context, name.c_str()) != 1) {
    ERR_clear_error();
    return InvalidArgument("suite '" + name + "': unknown, or too weak to be offered");
  }
  const STACK_OF(SSL_CIPHER)* named = SSL_CTX_get_ciphers(context);
  for (int i = 0; i < sk_SSL_CIPHER_num(named); ++i) {
    if (SSL_CIPHER_is_aead(sk_SSL_CIPHER_value(named, i)) == 0)
      return InvalidArgument("suite '" + name + "' is no AEAD: expected one with GCM or POLY1305");
  }
  return OkStatus();
}

Status Limit(SSL_CTX* context, const TlsOptions& options) {
  if (options.tls13_only) SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION);
  if (options.ciphers.empty()) return OkStatus();
  LLMD_RETURN_IF_ERROR(TlsContext::CheckSuites(options.ciphers));
  return SSL_CTX_set_cipher_list(context, options.ciphers.c_str()) == 1 ? OkStatus()
                                                                        : LastError("suites");
}

int ChooseProtocol(SSL*, const unsigned char** out, unsigned char* out_length,
                   const unsigned char* in, unsigned in_length, void*) {
  unsigned char* chosen = nullptr;
  if (SSL_select_next_proto(&chosen, out_length, kProtocols, sizeof(kProtocols) - 1, in,
                            in_length) != OPENSSL_NPN_NEGOTIATED)
    return SSL_TLSEXT_ERR_ALERT_FATAL;
  *out = chosen;
  return SSL_TLSEXT_ERR_OK;
}

}  // namespace

StatusOr<std::shared_ptr<const TlsContext>> TlsContext::Create(const TlsOptions& options) {
  LLMD_ASSIGN_OR_RETURN(Context context, NewContext(TLS_server_method()));
  SSL_CTX_set_options(context.get(), SSL_OP_IGNORE_UNEXPECTED_EOF);
  LLMD_RETURN_IF_ERROR(Limit(context.get(), options));
  SSL_CTX_set_alpn_select_cb(context.get(), ChooseProtocol, nullptr);
  SSL_CTX_set_session_id_context(context.get(), kSessions, sizeof kSessions - 1);
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

// In a list of several OpenSSL passes over what it does not know, so each is tried by itself.
Status TlsContext::CheckSuites(const std::string& ciphers) {
  LLMD_ASSIGN_OR_RETURN(const Context context, NewContext(TLS_server_method()));
  for (std::string_view rest = ciphers; !rest.empty();) {
    const std::string name(rest.substr(0, rest.find(':')));
    rest.remove_prefix(std::min(name.size() + 1, rest.size()));
    LLMD_RETURN_IF_ERROR(CheckSuite(context.get(), name));
  }
  return OkStatus();
}

TlsContext::~TlsContext() {
  SSL_CTX_free(static_cast<SSL_CTX*>(handle_));
}

}  // namespace llmd::http
