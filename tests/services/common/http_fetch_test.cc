#include "common/http_fetch.h"

#include <gmock/gmock.h>

#include <future>

#include "common/tls.h"
#include "llmd/http/server.h"

namespace llmd::services {
namespace {

using ::testing::HasSubstr;

http::Task<void> Answer(http::Exchange& exchange) {
  const StatusOr<std::string> body = co_await exchange.ReadAll();
  http::Response answer;
  answer.head.status = exchange.request().target == "/missing" ? 404 : 200;
  if (exchange.request().target.starts_with("/moved")) {
    answer.head.status = 308;
    const std::string to = exchange.request().target.substr(6);
    answer.head.headers.Add("Location", to.empty() ? "/moved" : to);
  }
  answer.body = exchange.request().method + " " + exchange.request().target + " " + *body;
  (void)co_await exchange.Send(std::move(answer));
}

class HttpFetchTest : public ::testing::Test {
 protected:
  void Serve(http::TlsProvider tls) {
    http::ServerOptions options;
    options.tls = std::move(tls);
    server_ = *http::Server::Create(*runtime_, std::move(options), Answer, Logger());
  }
  void ServeTls() {
    const std::shared_ptr<const http::TlsContext> context =
        *http::TlsContext::Create({pair_.chain, pair_.key, ""});
    Serve([context] { return context; });
  }
  StatusOr<std::string> Get(const sched::PageSpec& page) {
    sched::EndpointInfo endpoint;
    endpoint.address = "127.0.0.1";
    endpoint.port = server_->port();
    std::promise<StatusOr<std::string>> promise;
    fetch_->Get(endpoint, page, std::chrono::seconds(10),
                [&](StatusOr<std::string> text) { promise.set_value(std::move(text)); });
    return promise.get_future().get();
  }
  StatusOr<std::string> Post(const std::string& url) {
    std::promise<StatusOr<std::string>> promise;
    fetch_->Post(url, "{}", std::chrono::seconds(10),
                 [&](StatusOr<std::string> text) { promise.set_value(std::move(text)); });
    return promise.get_future().get();
  }
  std::string address() const { return "127.0.0.1:" + std::to_string(server_->port()); }

  const Certificate pair_ = *SelfSigned("here");
  std::unique_ptr<http::Runtime> runtime_ = *http::Runtime::Create(1);
  std::unique_ptr<http::Server> server_;
  std::shared_ptr<sched::Fetch> fetch_ = MakeHttpFetch(*runtime_);
};

TEST_F(HttpFetchTest, ReadsPagesInClearText) {
  Serve({});
  EXPECT_EQ(*Get({}), "GET /metrics ");
  EXPECT_EQ(*Post("http://" + address() + "/v1/x"), "POST /v1/x {}");
  EXPECT_THAT(Get({.path = "/missing"}).status().message(), HasSubstr("/missing answered 404"));
}

TEST_F(HttpFetchTest, FollowsRedirectsOfPagesOnly) {
  Serve({});
  EXPECT_EQ(*Get({.path = "/moved/moved/metrics/"}), "GET /metrics/ ");
  EXPECT_THAT(Get({.path = "/moved"}).status().message(), HasSubstr("more than 3 redirects"));
  EXPECT_THAT(Get({.path = "/movedhttps://" + address()}).status().message(),
              HasSubstr("same scheme and host"));
  EXPECT_THAT(Post("http://" + address() + "/moved/x").status().message(), HasSubstr("308"));
}

TEST_F(HttpFetchTest, ReadsPagesOverTls) {
  ServeTls();
  const auto any = std::make_shared<sched::PageTls>();
  const auto believed =
      std::make_shared<sched::PageTls>(sched::PageTls{.verify = true, .ca = pair_.chain});
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(*Get({.tls = any}), "GET /metrics ");
    EXPECT_EQ(*Get({.tls = believed}), "GET /metrics ");
  }
  EXPECT_FALSE(Get({}).ok()) << "clear text to a TLS port";
}

TEST_F(HttpFetchTest, ChecksTheCertificateWhereAsked) {
  ServeTls();
  const auto other = std::make_shared<sched::PageTls>(
      sched::PageTls{.verify = true, .ca = SelfSigned("here")->chain});
  EXPECT_THAT(Get({.tls = other}).status().message(), HasSubstr("certificate"));
  EXPECT_THAT(Post("https://" + address() + "/x").status().message(), HasSubstr("certificate"))
      << "posts believe whom the system believes";
}

TEST_F(HttpFetchTest, WhatCannotBeReadIsSaid) {
  ServeTls();
  const auto bad = std::make_shared<sched::PageTls>(sched::PageTls{.verify = true, .ca = "junk"});
  EXPECT_THAT(Get({.tls = bad}).status().message(), HasSubstr("authority"));
  EXPECT_THAT(Post("ftp://x/").status().message(), HasSubstr("expected http[s]://"));
}

}  // namespace
}  // namespace llmd::services
