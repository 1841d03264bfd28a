#include "gateway/ext_proc_credentials.h"

#include <grpcpp/grpcpp.h>
#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_certificate_verifier.h>
#include <grpcpp/security/tls_credentials_options.h>

#include <vector>

namespace llmd::gateway {
namespace {

class AnyCertificate final : public grpc::experimental::ExternalCertificateVerifier {
 public:
  bool Verify(grpc::experimental::TlsCustomVerificationCheckRequest*,
              std::function<void(grpc::Status)>, grpc::Status* status) override {
    *status = grpc::Status::OK;
    return true;
  }
  void Cancel(grpc::experimental::TlsCustomVerificationCheckRequest*) override {}
};

}  // namespace

std::shared_ptr<grpc::ChannelCredentials> PickerCredentials(const PickerAddress& address) {
  if (!address.secure) return grpc::InsecureChannelCredentials();
  if (!address.authority.empty())
    return grpc::SslCredentials({address.authority, address.key, address.chain});
  // A picker's own certificate is self-signed: encrypted, but anyone's.
  grpc::experimental::TlsChannelCredentialsOptions options;
  options.set_verify_server_certs(false);
  options.set_check_call_host(false);
  options.set_certificate_verifier(
      grpc::experimental::ExternalCertificateVerifier::Create<AnyCertificate>());
  if (!address.chain.empty()) {
    const grpc::experimental::IdentityKeyCertPair ours{address.key, address.chain};
    options.set_certificate_provider(
        std::make_shared<grpc::experimental::StaticDataCertificateProvider>(std::vector{ours}));
    options.watch_identity_key_cert_pairs();
  }
  return grpc::experimental::TlsCredentials(options);
}

}  // namespace llmd::gateway
