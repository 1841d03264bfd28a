#include "common/relay_tls.h"

#include <utility>

namespace llmd::services {
namespace {

// Both files of a pair, or neither.
Status CheckPairFlags(std::string_view cert_flag, const std::string& cert,
                      std::string_view key_flag, const std::string& key) {
  if (cert.empty() == key.empty()) return OkStatus();
  const std::string given(cert.empty() ? key_flag : cert_flag);
  return InvalidArgument(given + " needs " + std::string(cert.empty() ? cert_flag : key_flag));
}

Status CheckServing(const ServingTlsFlags& flags) {
  LLMD_RETURN_IF_ERROR(
      CheckPairFlags("--tls-cert-file", flags.cert_file, "--tls-key-file", flags.key_file));
  if (!flags.cert_path.empty() && !flags.cert_file.empty())
    return InvalidArgument("--cert-path and --tls-cert-file exclude each other");
  if (flags.secure || flags.has_pair()) return OkStatus();
  const std::pair<const char*, const std::string*> rest[] = {
      {"--client-ca-file", &flags.client_ca_file},
      {"--tls-min-version", &flags.min_version},
      {"--tls-cipher-suites", &flags.cipher_suites}};
  for (const auto& [flag, value] : rest) {
    if (!value->empty())
      return InvalidArgument(std::string(flag) + " is given, but the port serves clear text");
  }
  return OkStatus();
}

}  // namespace

void AddServingTlsFlags(FlagSet& set, ServingTlsFlags& flags) {
  set.String("tls-cert-file", &flags.cert_file,
             "certificate chain of the port for clients (PEM), for names other than those of "
             "--cert-path");
  set.String("tls-key-file", &flags.key_file, "its private key (PEM)");
  set.Alias("tls-private-key-file", "tls-key-file");
  set.String("client-ca-file", &flags.client_ca_file,
             "mTLS: clients must show a certificate of this authority (PEM)");
  set.Alias("tls-client-ca-file", "client-ca-file");
  set.String("tls-min-version", &flags.min_version, "VersionTLS12 (default) or VersionTLS13");
  set.String("tls-cipher-suites", &flags.cipher_suites,
             "comma-separated IANA names of the TLS 1.2 suites to offer, of those that are AEAD");
  set.Bool("enable-cert-reload", &flags.reload, "follow changes of the certificate's files");
}

StatusOr<http::TlsProvider> MakeServingTls(const ServingTlsFlags& flags, std::string_view host,
                                           const Logger& logger, MetricsRegistry& metrics) {
  LLMD_RETURN_IF_ERROR(CheckServing(flags));
  if (!flags.secure && !flags.has_pair()) return http::TlsProvider();
  LLMD_ASSIGN_OR_RETURN(const TlsPolicy policy,
                        ParseTlsPolicy(flags.min_version, flags.cipher_suites));
  LLMD_RETURN_IF_ERROR(
      http::TlsContext::CheckSuites(policy.ciphers).WithContext("--tls-cipher-suites"));
  FollowedTls::Options options;
  options.side = "client";
  options.files = {flags.cert_path, flags.client_ca_file, flags.cert_file, flags.key_file};
  options.follow = flags.reload;
  Certificate own;
  if (!flags.has_pair()) {
    LLMD_ASSIGN_OR_RETURN(own, SelfSigned(host));
  }
  options.fixed = own;
  options.make = [policy, own](const Certificate& read) {
    const Certificate& pair = read.chain.empty() ? own : read;
    return http::TlsContext::Create(
        {pair.chain, pair.key, read.client_ca, policy.tls13_only, policy.ciphers});
  };
  LLMD_ASSIGN_OR_RETURN(std::shared_ptr<FollowedTls> tls,
                        FollowedTls::Create(std::move(options), logger, metrics));
  return FollowedTls::Provider(std::move(tls));
}

void AddUpstreamTlsFlags(FlagSet& set, UpstreamTlsFlags& flags) {
  set.String("upstream-tls-ca-file", &flags.ca_file,
             "authority whose certificates engines must show (PEM); without it those that the "
             "system believes");
  set.String("upstream-tls-cert-file", &flags.cert_file,
             "mTLS: certificate chain that engines are shown (PEM)");
  set.String("upstream-tls-key-file", &flags.key_file, "its private key (PEM)");
  set.String("upstream-tls-server-name", &flags.server_name,
             "to whom engines' certificates must be made out, in place of the host or address");
}

StatusOr<http::TlsProvider> MakeUpstreamTls(const UpstreamTlsFlags& flags, bool verify,
                                            std::string side, const Logger& logger,
                                            MetricsRegistry& metrics) {
  LLMD_RETURN_IF_ERROR(CheckPairFlags("--upstream-tls-cert-file", flags.cert_file,
                                      "--upstream-tls-key-file", flags.key_file));
  FollowedTls::Options options;
  options.side = std::move(side);
  options.files = {"", verify ? flags.ca_file : "", flags.cert_file, flags.key_file};
  options.make = [verify](const Certificate& read) {
    return http::TlsContext::CreateClient({verify, read.client_ca, read.chain, read.key});
  };
  LLMD_ASSIGN_OR_RETURN(std::shared_ptr<FollowedTls> tls,
                        FollowedTls::Create(std::move(options), logger, metrics));
  return FollowedTls::Provider(std::move(tls));
}

std::shared_ptr<const void> AddHandshakeMetrics(
    MetricsRegistry& metrics, std::function<std::vector<relay::LoopStats>()> stats) {
  return metrics.AddCounterCollector(
      "llmd_tls_handshakes_total", "TLS handshakes with clients.",
      [stats = std::move(stats)](const MetricsRegistry::GaugeEmit& emit) {
        uint64_t done = 0, failed = 0;
        for (const relay::LoopStats& each : stats()) {
          done += each.handshakes;
          failed += each.handshake_failures;
        }
        emit({{"result", "done"}}, static_cast<double>(done));
        emit({{"result", "failed"}}, static_cast<double>(failed));
      });
}

}  // namespace llmd::services
