#include "common/admin_server.h"

#include "common/followed_tls.h"

namespace llmd::services {
namespace {

StatusOr<http::TlsProvider> ProviderOf(const PickerFlags& flags, const Logger& logger,
                                       MetricsRegistry& metrics) {
  if (flags.metrics_cert_dir.empty()) {
    if (!flags.metrics_client_ca_file.empty())
      return InvalidArgument("--metrics-client-ca-file needs --metrics-cert-dir");
    return http::TlsProvider();
  }
  FollowedTls::Options options;
  options.side = "admin";
  options.files = {flags.metrics_cert_dir, flags.metrics_client_ca_file};
  options.make = [](const Certificate& read) {
    return http::TlsContext::Create({read.chain, read.key, read.client_ca});
  };
  auto tls = FollowedTls::Create(std::move(options), logger, metrics);
  if (!tls.ok()) return tls.status().WithContext("--metrics-cert-dir");
  return FollowedTls::Provider(std::move(*tls));
}

}  // namespace

StatusOr<std::unique_ptr<http::Server>> StartAdminServer(http::Runtime& runtime,
                                                         const PickerFlags& flags,
                                                         const http::Router& router,
                                                         const Logger& logger,
                                                         MetricsRegistry& metrics) {
  http::ServerOptions options;
  options.host = flags.metrics_host;
  options.port = flags.metrics_port;
  LLMD_ASSIGN_OR_RETURN(options.tls, ProviderOf(flags, logger, metrics));
  auto server = http::Server::Create(runtime, options, router.AsHandler(), logger);
  if (!server.ok()) return server.status().WithContext("--metrics-port");
  return server;
}

}  // namespace llmd::services
