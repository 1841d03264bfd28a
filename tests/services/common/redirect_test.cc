#include "common/redirect.h"

#include <gtest/gtest.h>

namespace llmd::services {
namespace {

// "host:port/target" or the error's words.
std::string Followed(const std::string& from, std::string_view location) {
  const StatusOr<http::Url> url = http::ParseUrl(from);
  const StatusOr<http::Url> to = FollowRedirect(*url, location);
  return to.ok() ? to->peer.ToString() + to->target : to.status().message();
}

TEST(FollowRedirect, ReadsEveryFormOfLocation) {
  const std::string from = "http://10.0.0.1:8000/a/metrics?x=1";
  EXPECT_EQ(Followed(from, "/metrics/"), "10.0.0.1:8000/metrics/");
  EXPECT_EQ(Followed(from, "metrics/?y"), "10.0.0.1:8000/a/metrics/?y");
  EXPECT_EQ(Followed(from, "?y=2"), "10.0.0.1:8000/a/metrics?y=2");
  EXPECT_EQ(Followed(from, "HTTP://10.0.0.1:8000/m#part"), "10.0.0.1:8000/m");
  EXPECT_EQ(Followed(from, "//10.0.0.1:9/m"), "10.0.0.1:9/m");
  EXPECT_EQ(Followed(from, "http://10.0.0.1"), "10.0.0.1:80/");
  EXPECT_EQ(Followed("https://Engine.local/m", "https://engine.LOCAL/n"), "engine.LOCAL:443/n");
  EXPECT_EQ(Followed("http://[::1]:8000/m", "http://[::1]:8000/n"), "[::1]:8000/n");
}

TEST(FollowRedirect, StaysWithTheSchemeAndHost) {
  const std::string from = "http://10.0.0.1:8000/metrics";
  for (const char* location :
       {"https://10.0.0.1:8000/metrics", "http://10.0.0.2:8000/metrics", "//169.254.169.254/",
        "file:///etc/passwd", "http://10.0.0.1:8000@evil/", "", "#x", "/a b", "/a\r\nhost: x",
        "http://", "ftp:x", "http://10.0.0.1:99999/"}) {
    EXPECT_NE(Followed(from, location).find("redirect"), std::string::npos) << location;
  }
}

TEST(FollowRedirect, HappensForFourStatuses) {
  std::string found;
  for (int status = 300; status < 310; ++status) {
    if (IsRedirect(status)) found += std::to_string(status) + " ";
  }
  EXPECT_EQ(found, "301 302 307 308 ");
}

}  // namespace
}  // namespace llmd::services
