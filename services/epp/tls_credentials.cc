#include "epp/tls_credentials.h"

#include <grpc/grpc.h>
#include <grpc/grpc_security.h>

#include <cstdlib>
#include <mutex>

namespace llmd::epp {
namespace {

using services::Certificate;
using services::CertificateSource;

// The C++ layer offers files at intervals of a second or more; the C layer asks at each handshake.
class TlsCredentials final : public grpc::ServerCredentials {
 public:
  explicit TlsCredentials(std::shared_ptr<CertificateSource> source) : source_(std::move(source)) {
    const bool ask = !source_->Current()->client_ca.empty();
    credentials_ = grpc_ssl_server_credentials_create_with_options(
        grpc_ssl_server_credentials_create_options_using_config_fetcher(
            ask ? GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY
                : GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE,
            &TlsCredentials::Fetch, this));
  }
  ~TlsCredentials() override { grpc_server_credentials_release(credentials_); }

  void SetAuthMetadataProcessor(const std::shared_ptr<grpc::AuthMetadataProcessor>&) override {}

 private:
  int AddPortToServer(const std::string& address, grpc_server* server) override {
    return grpc_server_add_http2_port(server, address.c_str(), credentials_);
  }

  static grpc_ssl_certificate_config_reload_status Fetch(
      void* self, grpc_ssl_server_certificate_config** config) {
    return static_cast<TlsCredentials*>(self)->Reload(config);
  }

  grpc_ssl_certificate_config_reload_status Reload(grpc_ssl_server_certificate_config** config) {
    std::lock_guard lock(mutex_);
    std::shared_ptr<const Certificate> now = source_->Current();
    if (now == given_) return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_UNCHANGED;
    const grpc_ssl_pem_key_cert_pair pair{now->key.c_str(), now->chain.c_str()};
    // When a new configuration is fetched gRPC 1.51 asserts that there are roots, wanted or not:
    // where no client is asked for a certificate, ours stand in and verify nothing.
    const std::string& roots = now->client_ca.empty() ? now->chain : now->client_ca;
    *config = grpc_ssl_server_certificate_config_create(roots.c_str(), &pair, 1);
    given_ = std::move(now);
    return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_NEW;
  }

  const std::shared_ptr<CertificateSource> source_;
  grpc_server_credentials* credentials_ = nullptr;
  std::mutex mutex_;
  std::shared_ptr<const Certificate> given_;  // guarded by mutex_
};

}  // namespace

void ApplyTlsPolicy(const services::TlsPolicy& policy) {
  // This gRPC has no setting for the oldest version. A TLS 1.2 list of suites that need a shared
  // key, which is never set, leaves TLS 1.3 alone.
  const std::string ciphers = policy.tls13_only ? "PSK-AES128-GCM-SHA256" : policy.ciphers;
  if (!ciphers.empty()) ::setenv("GRPC_SSL_CIPHER_SUITES", ciphers.c_str(), 1);
}

std::shared_ptr<grpc::ServerCredentials> MakeTlsCredentials(
    std::shared_ptr<CertificateSource> source) {
  return std::make_shared<TlsCredentials>(std::move(source));
}

}  // namespace llmd::epp
