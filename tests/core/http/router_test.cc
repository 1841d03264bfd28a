#include <gtest/gtest.h>

#include "fixture.h"

namespace llmd::http {
namespace {
using testing::TestServer;
using testing::Text;

Task<void> Exact(Exchange& exchange) {
  (void)co_await exchange.Send(Text("exact"));
}
Task<void> Prefix(Exchange& exchange) {
  (void)co_await exchange.Send(Text("prefix"));
}
Task<void> Longer(Exchange& exchange) {
  (void)co_await exchange.Send(Text("longer"));
}
Task<void> Gone(Exchange& exchange) {
  Response answer = JsonResponse(410, "{}");
  (void)co_await exchange.Send(std::move(answer));
}

class RouterTest : public ::testing::Test {
 protected:
  RouterTest() {
    router_.Add("GET", "/health", Exact);
    router_.Add("POST", "/v1/*", Prefix);
    router_.Add("POST", "/v1/long/*", Longer);
    router_.Add("POST", "/v1/exact", Exact);
  }
  std::string Ask(std::string_view request_line) {
    TestServer server(router_.AsHandler());
    auto client = server.Connect();
    client.Send(std::string(request_line) + " HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    return client.ReadToEnd();
  }
  Router router_;
};

TEST_F(RouterTest, PrefersExactThenTheLongestPrefix) {
  EXPECT_TRUE(Ask("POST /v1/exact?x=/v1/long/").ends_with("\r\n\r\nexact"));
  EXPECT_TRUE(Ask("POST /v1/long/a").ends_with("\r\n\r\nlonger"));
  EXPECT_TRUE(Ask("POST /v1/other").ends_with("\r\n\r\nprefix"));
}

TEST_F(RouterTest, AnswersHeadByGetWithoutABody) {
  const std::string answer = Ask("HEAD /health");
  EXPECT_TRUE(answer.starts_with("HTTP/1.1 200 OK\r\n"));
  EXPECT_NE(answer.find("Content-Length: 5\r\n"), std::string::npos);
  EXPECT_TRUE(answer.ends_with("\r\n\r\n"));
}

TEST_F(RouterTest, AnswersUnknownPathsAndMethodsAsVllmDoes) {
  EXPECT_NE(Ask("GET /nope").find("404 Not Found"), std::string::npos);
  EXPECT_TRUE(Ask("GET /nope").ends_with("{\"detail\":\"Not Found\"}"));
  const std::string answer = Ask("POST /health");
  EXPECT_NE(answer.find("405 Method Not Allowed"), std::string::npos);
  EXPECT_NE(answer.find("Allow: GET, HEAD\r\n"), std::string::npos);
}

TEST_F(RouterTest, DotSegmentsReachNoPrefixRoute) {
  for (const char* path : {"/v1/../admin", "/v1/a/./b", "/v1/%2e%2E/admin", "/v1/.%2e", "/v1/."}) {
    EXPECT_NE(Ask(std::string("POST ") + path).find("404"), std::string::npos) << path;
  }
  EXPECT_NE(Ask("POST /v1/.../a..b/.c").find("200"), std::string::npos);
}

TEST_F(RouterTest, TakesOtherHandlersForTheUnknown) {
  router_.NotFound(Gone);
  router_.MethodNotAllowed(Gone);
  EXPECT_NE(Ask("GET /nope").find("410 Gone"), std::string::npos);
  EXPECT_NE(Ask("PUT /health").find("410 Gone"), std::string::npos);
}

}  // namespace
}  // namespace llmd::http
