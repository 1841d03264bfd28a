#include "gateway/tls_flags.h"

namespace llmd::gateway {

void AddTlsFlags(services::FlagSet& set, TlsFlags& flags) {
  set.Bool("secure-serving", &flags.serving.secure,
           "serve TLS (1.2 or newer) to clients; so do --cert-path and --tls-cert-file, without "
           "which the certificate is a self-signed one");
  set.String("cert-path", &flags.serving.cert_path, "directory with tls.crt and tls.key");
  services::AddServingTlsFlags(set, flags.serving);
  set.Bool("upstream-tls", &flags.upstream, "speak TLS to the engines, all of them");
  set.Bool("upstream-tls-insecure-skip-verify", &flags.insecure,
           "believe any certificate of the engines");
  services::AddUpstreamTlsFlags(set, flags.engines);
}

Status UseTls(const TlsFlags& flags, const Logger& logger, MetricsRegistry& metrics,
              FrontOptions& options) {
  LLMD_ASSIGN_OR_RETURN(options.tls,
                        services::MakeServingTls(flags.serving, options.host, logger, metrics));
  if (!flags.upstream) {
    if (!flags.engines.any() && !flags.insecure) return OkStatus();
    return InvalidArgument("the flags --upstream-tls-… need --upstream-tls");
  }
  if (flags.insecure && !flags.engines.ca_file.empty()) {
    return InvalidArgument(
        "--upstream-tls-ca-file and --upstream-tls-insecure-skip-verify exclude each other");
  }
  LLMD_ASSIGN_OR_RETURN(
      options.upstream_tls,
      services::MakeUpstreamTls(flags.engines, !flags.insecure, "upstream", logger, metrics));
  options.upstream_tls_host = flags.engines.server_name;
  return OkStatus();
}

}  // namespace llmd::gateway
