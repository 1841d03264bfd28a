#include "common/followed_tls.h"

#include <gmock/gmock.h>

#include "tls_files.h"

namespace llmd::services {
namespace {

using std::chrono::seconds;
using testing::HasSubstr;

class FollowedTlsTest : public TlsFiles {
 protected:
  StatusOr<std::shared_ptr<FollowedTls>> Follow(bool follow = true) {
    FollowedTls::Options options;
    options.side = "client";
    options.files = files_;
    options.follow = follow;
    options.make = [](const Certificate& read) {
      return http::TlsContext::Create({read.chain, read.key, read.client_ca});
    };
    return FollowedTls::Create(std::move(options), logger_, metrics_, clock_);
  }
  double Reloads(const char* result) {
    return metrics_
        .AddCounter("llmd_tls_reloads_total", "", {{"side", "client"}, {"result", result}})
        .value();
  }
  double Expires() {
    return metrics_
        .AddGauge("llmd_tls_certificate_expires_timestamp_seconds", "", {{"side", "client"}})
        .value();
  }
  // The thread's own looks only come earlier.
  std::shared_ptr<const http::TlsContext> Look(FollowedTls& tls) {
    clock_.Advance(seconds(1));
    tls.Look();
    return tls.Current();
  }

  MetricsRegistry metrics_;
};

TEST_F(FollowedTlsTest, RefusesAtStartWhatCannotBeUsed) {
  EXPECT_THAT(Follow().status().message(), HasSubstr(Path("tls.crt")));
  WritePair();
  files_.client_ca = Path("ca.crt");
  EXPECT_THAT(Follow().status().message(), HasSubstr(Path("ca.crt")));
  EXPECT_THAT(Follow(false).status().message(), HasSubstr(Path("ca.crt")));
}

TEST_F(FollowedTlsTest, TakesWhatIsNewAndCountsIt) {
  const Certificate first = WritePair();
  const auto tls = *Follow();
  EXPECT_EQ(Expires(), static_cast<double>(ExpiryOf(first.chain)));
  const auto before = tls->Current();
  EXPECT_EQ(Look(*tls), before);
  WritePair(seconds(5));
  EXPECT_NE(Look(*tls), before);
  EXPECT_EQ(Reloads("taken"), 1);
  EXPECT_EQ(Reloads("refused"), 0);
}

TEST_F(FollowedTlsTest, KeepsTheOldOneAndSaysSo) {
  WritePair();
  files_.client_ca = Path("ca.crt");
  Write("ca.crt", SelfSigned("")->chain);
  const auto tls = *Follow();
  const auto before = tls->Current();
  // It begins with a certificate, so that only the handshake's own reader sees what is wrong.
  Write("ca.crt", SelfSigned("")->chain + "-----BEGIN CERTIFICATE-----\nAAAA\n", seconds(4));
  Write("tls.key", "nonsense", seconds(5));
  EXPECT_EQ(Look(*tls), before);
  EXPECT_EQ(Reloads("refused"), 1);
  ASSERT_FALSE(sink_->Lines().empty());
  const json::Value line = sink_->Lines().back();
  EXPECT_EQ(line["level"].AsString(), "error");
  EXPECT_EQ(line["side"].AsString(), "client");
  EXPECT_THAT(line["error"].AsString(), HasSubstr("tls.key"));
  EXPECT_EQ(Look(*tls), before);
  EXPECT_EQ(Reloads("refused"), 1) << "it is told once";
}

TEST_F(FollowedTlsTest, MayBeToldNotToFollow) {
  WritePair();
  const auto tls = *Follow(false);
  const auto before = tls->Current();
  WritePair(seconds(5));
  EXPECT_EQ(Look(*tls), before);
}

}  // namespace
}  // namespace llmd::services
