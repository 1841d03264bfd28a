#include "common/tls.h"

#include <gmock/gmock.h>

#include "common/tls_flags.h"
#include "tls_files.h"

namespace llmd::services {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::HasSubstr;

using Tls = TlsFiles;

TEST_F(Tls, MakesACertificateOfItsOwnEachTime) {
  for (const char* host : {"", "10.0.0.1", "2001:db8::1", "picker.example"}) {
    const auto made = SelfSigned(host);
    ASSERT_TRUE(made.ok()) << made.status().ToString();
    Write("tls.crt", made->chain);
    Write("tls.key", made->key);
    EXPECT_TRUE(LoadCertificate(files_).ok()) << host;
  }
  EXPECT_NE(SelfSigned("")->key, SelfSigned("")->key);
}

TEST_F(Tls, NamesTheFileThatIsWrong) {
  EXPECT_THAT(LoadCertificate(files_).status().message(), HasSubstr("tls.crt"));
  const Certificate good = WritePair();
  Write("tls.key", SelfSigned("")->key);
  EXPECT_THAT(LoadCertificate(files_).status().message(), HasSubstr("not that of its certificate"));
  Write("tls.key", "nonsense");
  EXPECT_THAT(LoadCertificate(files_).status().message(), HasSubstr("tls.key"));
  Write("tls.crt", "nonsense");
  EXPECT_THAT(LoadCertificate(files_).status().message(),
              HasSubstr("tls.crt' holds no certificate"));
  WritePair();
  Write("ca.crt", "nonsense");
  files_.client_ca = (dir_ / "ca.crt").string();
  EXPECT_THAT(LoadCertificate(files_).status().message(), HasSubstr("ca.crt"));
}

TEST_F(Tls, FilesMayHaveNamesOfTheirOwn) {
  const Certificate pair = WritePair();
  const CertificateFiles named{"", "", Path("tls.crt"), Path("tls.key")};
  EXPECT_EQ(LoadCertificate(named)->chain, pair.chain);
  Write("tls.key", SelfSigned("")->key);
  EXPECT_THAT(LoadCertificate(named).status().message(), HasSubstr(Path("tls.key")));
  EXPECT_THAT(LoadCertificate({"", "", Path("tls.crt"), Path("none.key")}).status().message(),
              HasSubstr("none.key"));
}

TEST_F(Tls, KnowsWhenACertificateExpires) {
  const int64_t expires = ExpiryOf(SelfSigned("")->chain);
  const int64_t in_years = (expires - std::time(nullptr)) / (365 * 24 * 3600);
  EXPECT_TRUE(in_years == 9 || in_years == 10) << in_years;
  EXPECT_EQ(ExpiryOf("nonsense"), 0);
}

TEST_F(Tls, FollowsAPairOnceItHasSettled) {
  const Certificate first = WritePair();
  auto source = CertificateSource::Follow(files_, logger_, clock_);
  ASSERT_TRUE(source.ok());
  const auto before = (*source)->Current();
  EXPECT_EQ(before->chain, first.chain);

  clock_.Advance(seconds(1));
  const Certificate second = WritePair(milliseconds(100));
  EXPECT_EQ((*source)->Current(), before) << "still being written";
  clock_.Advance(milliseconds(260));
  EXPECT_EQ((*source)->Current()->chain, second.chain);
  EXPECT_EQ((*source)->Current(), (*source)->Current());
}

TEST_F(Tls, LooksAtTheFilesNoMoreThanItMust) {
  WritePair();
  auto source = CertificateSource::Follow(files_, logger_, clock_);
  const auto before = (*source)->Current();
  WritePair(seconds(5));
  EXPECT_EQ((*source)->Current(), before) << "looked just now";
  clock_.Advance(milliseconds(250));
  EXPECT_NE((*source)->Current(), before);
}

TEST_F(Tls, KeepsTheOldPairWhileTheNewOneDoesNotFit) {
  WritePair();
  auto source = CertificateSource::Follow(files_, logger_, clock_);
  const auto before = (*source)->Current();
  const Certificate other = *SelfSigned("");
  Write("tls.crt", other.chain, seconds(5));
  clock_.Advance(seconds(1));
  EXPECT_EQ((*source)->Current(), before);
  ASSERT_FALSE(sink_->Lines().empty());
  EXPECT_THAT(sink_->Lines().back()["msg"].AsString(), HasSubstr("the old one stays"));
  Write("tls.key", other.key, seconds(4));
  clock_.Advance(seconds(1));
  EXPECT_EQ((*source)->Current()->chain, other.chain);
}

TEST_F(Tls, FollowsTheAuthorityOfTheClientsToo) {
  WritePair();
  Write("ca.crt", SelfSigned("")->chain);
  files_.client_ca = (dir_ / "ca.crt").string();
  auto source = CertificateSource::Follow(files_, logger_, clock_);
  const Certificate other = *SelfSigned("");
  Write("ca.crt", other.chain, seconds(3));
  clock_.Advance(seconds(1));
  EXPECT_EQ((*source)->Current()->client_ca, other.chain);
}

TEST(TlsPolicy, ReadsVersionsAndSuites) {
  EXPECT_FALSE(ParseTlsPolicy("", "")->tls13_only);
  EXPECT_FALSE(ParseTlsPolicy("VersionTLS12", "")->tls13_only);
  EXPECT_TRUE(ParseTlsPolicy("VersionTLS13", "")->tls13_only);
  EXPECT_EQ(ParseTlsPolicy("",
                           "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,TLS_AES_128_GCM_SHA256,"
                           "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256")
                ->ciphers,
            "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-CHACHA20-POLY1305");
  EXPECT_TRUE(ParseTlsPolicy("", "TLS_AES_128_GCM_SHA256")->tls13_only);
}

TEST(TlsPolicy, RefusesWhatItDoesNotKnow) {
  EXPECT_THAT(ParseTlsPolicy("VersionTLS11", "").status().message(), HasSubstr("VersionTLS11"));
  EXPECT_THAT(ParseTlsPolicy("", "TLS_NOT_A_SUITE").status().message(),
              HasSubstr("TLS_NOT_A_SUITE"));
  EXPECT_FALSE(ParseTlsPolicy("", "TLS_AES_128_GCM_SHA256,,").ok());
}

TEST(TlsFlags, RefuseWhatMakesNoSense) {
  TlsFlags flags;
  EXPECT_TRUE(CheckTlsFlags(flags).ok());
  flags.reload = true;
  EXPECT_THAT(CheckTlsFlags(flags).status().message(), HasSubstr("--cert-path"));
  flags.cert_path = "/tmp";
  EXPECT_TRUE(CheckTlsFlags(flags).ok());
  flags.secure = false;
  EXPECT_THAT(CheckTlsFlags(flags).status().message(), HasSubstr("--secure-serving=false"));
}

TEST(TlsFlags, MakeASelfSignedSourceThatMayAskForClientCertificates) {
  TlsFlags flags;
  const Logger logger;
  auto plain = MakeCertificateSource(flags, "127.0.0.1", logger);
  ASSERT_TRUE(plain.ok());
  EXPECT_EQ((*plain)->Current()->client_ca, "");
  flags.client_ca_file = "/nowhere/ca.crt";
  EXPECT_THAT(MakeCertificateSource(flags, "", logger).status().message(),
              HasSubstr("--client-ca-file"));
  flags.client_ca_file = "";
  flags.cert_path = "/nowhere";
  EXPECT_THAT(MakeCertificateSource(flags, "", logger).status().message(),
              HasSubstr("--cert-path"));
}

}  // namespace
}  // namespace llmd::services
