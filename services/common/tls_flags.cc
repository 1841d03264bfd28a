#include "common/tls_flags.h"

namespace llmd::services {

void AddTlsFlags(FlagSet& set, TlsFlags& flags) {
  set.Bool("secure-serving", &flags.secure,
           "serve TLS (1.2 or newer, HTTP/2) on the ext_proc port; the health port is clear text");
  set.String("cert-path", &flags.cert_path,
             "directory with tls.crt and tls.key; without it a self-signed P-256 certificate");
  set.Bool("enable-cert-reload", &flags.reload, "follow changes of the certificate's files");
  set.String("client-ca-file", &flags.client_ca_file,
             "mTLS: clients must show a certificate of this authority (PEM)");
  set.String("tls-min-version", &flags.min_version, "VersionTLS12 (default) or VersionTLS13");
  set.String("tls-cipher-suites", &flags.cipher_suites,
             "comma-separated IANA names of the TLS 1.2 suites to offer");
}

StatusOr<TlsPolicy> CheckTlsFlags(const TlsFlags& flags) {
  const bool any = flags.reload || !flags.cert_path.empty() || !flags.client_ca_file.empty() ||
                   !flags.min_version.empty() || !flags.cipher_suites.empty();
  if (!flags.secure && any) {
    return InvalidArgument(
        "--secure-serving=false excludes --cert-path, --enable-cert-reload, --client-ca-file, "
        "--tls-min-version and --tls-cipher-suites");
  }
  if (flags.reload && flags.cert_path.empty())
    return InvalidArgument("--enable-cert-reload needs --cert-path");
  return ParseTlsPolicy(flags.min_version, flags.cipher_suites);
}

StatusOr<std::shared_ptr<CertificateSource>> MakeCertificateSource(const TlsFlags& flags,
                                                                   std::string_view host,
                                                                   const Logger& logger) {
  const CertificateFiles files{flags.cert_path, flags.client_ca_file};
  if (flags.reload) {
    auto followed = CertificateSource::Follow(files, logger);
    if (!followed.ok()) return followed.status().WithContext("--cert-path");
    return followed;
  }
  auto certificate = flags.cert_path.empty() ? SelfSigned(host) : LoadCertificate(files);
  if (!certificate.ok()) return certificate.status().WithContext("--cert-path");
  if (flags.cert_path.empty() && !flags.client_ca_file.empty()) {
    auto authority = LoadAuthority(flags.client_ca_file);
    if (!authority.ok()) return authority.status().WithContext("--client-ca-file");
    certificate->client_ca = std::move(*authority);
  }
  return std::make_shared<CertificateSource>(std::move(*certificate));
}

}  // namespace llmd::services
