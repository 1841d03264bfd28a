#include "common/relay_tls.h"

#include <gmock/gmock.h>

#include "tls_files.h"

namespace llmd::services {
namespace {

using testing::HasSubstr;

class RelayTls : public TlsFiles {
 protected:
  StatusOr<http::TlsProvider> Serve(const ServingTlsFlags& flags) {
    return MakeServingTls(flags, "127.0.0.1", logger_, metrics_);
  }
  std::string ServeError(const ServingTlsFlags& flags) { return Serve(flags).status().message(); }
  StatusOr<http::TlsProvider> Ask(const UpstreamTlsFlags& flags, bool verify = true) {
    return MakeUpstreamTls(flags, verify, "upstream", logger_, metrics_);
  }

  MetricsRegistry metrics_;
};

TEST_F(RelayTls, ServesClearTextWithoutFlags) {
  EXPECT_FALSE(*Serve({}));
}

TEST_F(RelayTls, ServesWithFilesOrACertificateOfItsOwn) {
  WritePair();
  EXPECT_TRUE((*Serve({.cert_path = files_.dir}))());
  EXPECT_TRUE((*Serve({.cert_file = Path("tls.crt"), .key_file = Path("tls.key")}))());
  EXPECT_TRUE((*Serve({.secure = true}))());
  Write("ca.crt", SelfSigned("")->chain);
  EXPECT_TRUE((*Serve({.secure = true, .client_ca_file = Path("ca.crt")}))());
  EXPECT_TRUE(
      (*Serve({.cert_path = files_.dir, .min_version = "VersionTLS13", .reload = false}))());
}

TEST_F(RelayTls, NamesWhatIsWrong) {
  WritePair();
  EXPECT_THAT(ServeError({.cert_file = Path("tls.crt")}), HasSubstr("--tls-key-file"));
  EXPECT_THAT(ServeError({.key_file = Path("tls.key")}), HasSubstr("--tls-cert-file"));
  EXPECT_THAT(
      ServeError(
          {.cert_path = files_.dir, .cert_file = Path("tls.crt"), .key_file = Path("tls.key")}),
      HasSubstr("exclude each other"));
  EXPECT_THAT(ServeError({.client_ca_file = "x"}), HasSubstr("--client-ca-file"));
  EXPECT_THAT(ServeError({.min_version = "VersionTLS13"}), HasSubstr("--tls-min-version"));
  EXPECT_THAT(ServeError({.cipher_suites = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"}),
              HasSubstr("--tls-cipher-suites"));
  EXPECT_THAT(ServeError({.secure = true, .client_ca_file = Path("no.crt")}), HasSubstr("no.crt"));
  EXPECT_THAT(ServeError({.cert_file = Path("no.crt"), .key_file = Path("tls.key")}),
              HasSubstr("no.crt"));
  EXPECT_THAT(ServeError({.secure = true, .cipher_suites = "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA"}),
              HasSubstr("no AEAD"));
}

TEST_F(RelayTls, AsksUpstreamsWithWhatItIsGiven) {
  WritePair();
  EXPECT_TRUE((*Ask({}))());
  EXPECT_TRUE((*Ask({.ca_file = Path("tls.crt")}))());
  EXPECT_TRUE((*Ask({.cert_file = Path("tls.crt"), .key_file = Path("tls.key")}, false))());
  EXPECT_THAT(Ask({.cert_file = Path("tls.crt")}).status().message(),
              HasSubstr("--upstream-tls-key-file"));
  EXPECT_THAT(Ask({.ca_file = Path("no.crt")}).status().message(), HasSubstr("no.crt"));
}

TEST_F(RelayTls, CountsHandshakes) {
  std::vector<relay::LoopStats> stats(2);
  stats[0].handshakes = 2;
  stats[1].handshakes = 3;
  stats[1].handshake_failures = 1;
  const auto handle = AddHandshakeMetrics(metrics_, [&] { return stats; });
  EXPECT_THAT(metrics_.Expose(), HasSubstr("llmd_tls_handshakes_total{result=\"done\"} 5"));
  EXPECT_THAT(metrics_.Expose(), HasSubstr("llmd_tls_handshakes_total{result=\"failed\"} 1"));
}

}  // namespace
}  // namespace llmd::services
