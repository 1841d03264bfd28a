// The flags of a server that speaks TLS, with the endpoint picker's names.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "common/flags.h"
#include "common/tls.h"
#include "llmd/log.h"
#include "llmd/status.h"

namespace llmd::services {

struct TlsFlags {
  bool secure = true;  // --secure-serving
  std::string cert_path, client_ca_file, min_version, cipher_suites;
  bool reload = false;
};

void AddTlsFlags(FlagSet& set, TlsFlags& flags);
// INVALID_ARGUMENT for combinations that make no sense; the message names the flag.
StatusOr<TlsPolicy> CheckTlsFlags(const TlsFlags& flags);
// Only with flags.secure. The certificate of --cert-path, else a self-signed one for `host`.
StatusOr<std::shared_ptr<CertificateSource>> MakeCertificateSource(const TlsFlags& flags,
                                                                   std::string_view host,
                                                                   const Logger& logger);

}  // namespace llmd::services
