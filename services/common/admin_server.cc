#include "common/admin_server.h"

#include "common/tls.h"

namespace llmd::services {
namespace {

StatusOr<http::TlsProvider> ProviderOf(const PickerFlags& flags, const Logger& logger) {
  if (flags.metrics_cert_dir.empty()) {
    if (!flags.metrics_client_ca_file.empty())
      return InvalidArgument("--metrics-client-ca-file needs --metrics-cert-dir");
    return http::TlsProvider();
  }
  auto source =
      CertificateSource::Follow({flags.metrics_cert_dir, flags.metrics_client_ca_file}, logger);
  if (!source.ok()) return source.status().WithContext("--metrics-cert-dir");
  return MakeTlsProvider(std::move(*source));
}

}  // namespace

StatusOr<std::unique_ptr<http::Server>> StartAdminServer(http::Runtime& runtime,
                                                         const PickerFlags& flags,
                                                         const http::Router& router,
                                                         const Logger& logger) {
  http::ServerOptions options;
  options.host = flags.metrics_host;
  options.port = flags.metrics_port;
  LLMD_ASSIGN_OR_RETURN(options.tls, ProviderOf(flags, logger));
  auto server = http::Server::Create(runtime, options, router.AsHandler(), logger);
  if (!server.ok()) return server.status().WithContext("--metrics-port");
  return server;
}

}  // namespace llmd::services
