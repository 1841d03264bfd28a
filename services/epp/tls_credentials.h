// gRPC server credentials that ask for the certificate at each handshake, so that it may change
// while the server runs.
#pragma once

#include <grpcpp/security/server_credentials.h>

#include <memory>

#include "common/tls.h"

namespace llmd::epp {

// Applies to every TLS connection of the process; call it before the first credentials are made.
void ApplyTlsPolicy(const services::TlsPolicy& policy);
// With a client CA in the certificate, clients must show one of its certificates.
std::shared_ptr<grpc::ServerCredentials> MakeTlsCredentials(
    std::shared_ptr<services::CertificateSource> source);

}  // namespace llmd::epp
