// TLS of a relay, towards its clients and towards its upstreams: flags, and what they make.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/flags.h"
#include "common/followed_tls.h"
#include "llmd/http/relay/relay.h"

namespace llmd::services {

// Of the port for clients.
struct ServingTlsFlags {
  bool secure = false;  // without files: a self-signed certificate
  std::string cert_path, cert_file, key_file, client_ca_file, min_version, cipher_suites;
  bool reload = true;

  bool has_pair() const { return !cert_path.empty() || !cert_file.empty(); }
};
// All but `secure` and `cert_path`, whose flags have other names in each service.
void AddServingTlsFlags(FlagSet& set, ServingTlsFlags& flags);
// INVALID_ARGUMENT naming the flag or the file. Empty = clear text. `host` is that of a self-signed
// certificate.
StatusOr<http::TlsProvider> MakeServingTls(const ServingTlsFlags& flags, std::string_view host,
                                           const Logger& logger, MetricsRegistry& metrics);

// Of calls to upstreams.
struct UpstreamTlsFlags {
  std::string ca_file, cert_file, key_file, server_name;

  bool any() const { return !(ca_file + cert_file + key_file + server_name).empty(); }
};
void AddUpstreamTlsFlags(FlagSet& set, UpstreamTlsFlags& flags);
// `side` names it in logs and metrics; `verify` = the upstream's certificate is.
StatusOr<http::TlsProvider> MakeUpstreamTls(const UpstreamTlsFlags& flags, bool verify,
                                            std::string side, const Logger& logger,
                                            MetricsRegistry& metrics);

// llmd_tls_handshakes_total of a relay's clients, as long as the handle is held.
[[nodiscard]] std::shared_ptr<const void> AddHandshakeMetrics(
    MetricsRegistry& metrics, std::function<std::vector<relay::LoopStats>()> stats);

}  // namespace llmd::services
