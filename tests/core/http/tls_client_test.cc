// http::Client over TLS, against our own server and peers that are none.
#include <gmock/gmock.h>

#include "certificates.h"
#include "fixture.h"
#include "llmd/http/client.h"

namespace llmd::http {
namespace {

using testing::Echo;
using ::testing::HasSubstr;
using testing::MakePair;
using testing::RawSocket;
using testing::ScriptedPeer;
using testing::TestServer;
using testing::With;

constexpr char kLoopback[] = "IP:127.0.0.1";

StatusOr<Response> Fetch(HostPort peer, const TlsClientOptions& tls, std::string body = "",
                         int times = 1) {
  const auto runtime = *Runtime::Create(1);
  ClientOptions options;
  options.tls = *TlsContext::CreateClient(tls);
  options.connect_timeout = std::chrono::milliseconds(500);
  Client client(*runtime, options);
  StatusOr<Response> answer = Internal("not asked");
  for (int i = 0; i < times; ++i) {
    RequestHead head;
    head.method = body.empty() ? "GET" : "POST";
    head.target = "/t";
    answer = client.FetchBlocking(peer, std::move(head), body, {});
  }
  return answer;
}

TEST(TlsClient, ReachesAServerItBelieves) {
  const TlsOptions pair = MakePair(kLoopback);
  TestServer server(Echo, With(pair));
  EXPECT_EQ(Fetch(server.address(), {.ca = pair.chain}, "", 3)->body, "GET /t ");
}

TEST(TlsClient, ReachesAServerByName) {
  const TlsOptions pair = MakePair("DNS:localhost");
  TestServer server(Echo, With(pair));
  EXPECT_TRUE(Fetch({"localhost", server.server->port()}, {.ca = pair.chain}).ok());
}

TEST(TlsClient, CarriesLargeBodiesBothWays) {
  const TlsOptions pair = MakePair(kLoopback);
  TestServer server(Echo, With(pair));
  std::string body(5 << 20, 'x');
  for (size_t i = 0; i < body.size(); i += 997) body[i] = static_cast<char>('a' + i % 26);
  EXPECT_EQ(Fetch(server.address(), {.ca = pair.chain}, body)->body, "POST /t " + body);
}

TEST(TlsClient, RefusesAStranger) {
  TestServer server(Echo, With(MakePair(kLoopback)));
  const Status status = Fetch(server.address(), {.ca = MakePair(kLoopback).chain}).status();
  EXPECT_EQ(status.code(), StatusCode::kUnavailable);
  EXPECT_THAT(status.message(), HasSubstr("certificate"));
  EXPECT_THAT(status.message(), HasSubstr(server.address().ToString()));
  EXPECT_FALSE(Fetch(server.address(), {}).ok()) << "the system believes no such authority";
}

TEST(TlsClient, RefusesACertificateMadeOutToAnother) {
  const TlsOptions pair = MakePair("IP:127.0.0.2,DNS:elsewhere");
  TestServer server(Echo, With(pair));
  EXPECT_THAT(Fetch(server.address(), {.ca = pair.chain}).status().message(),
              HasSubstr("IP address mismatch"));
  EXPECT_THAT(Fetch({"localhost", server.server->port()}, {.ca = pair.chain}).status().message(),
              HasSubstr("ostname mismatch"));
}

TEST(TlsClient, TakesAnyoneWithoutVerification) {
  TestServer server(Echo, With(MakePair("DNS:elsewhere")));
  EXPECT_TRUE(Fetch(server.address(), {.verify = false}).ok());
}

TEST(TlsClient, ShowsItsCertificate) {
  const TlsOptions ours = MakePair();
  TlsOptions theirs = MakePair(kLoopback);
  theirs.client_ca = ours.chain;
  TestServer server(Echo, With(theirs));
  EXPECT_TRUE(
      Fetch(server.address(), {.ca = theirs.chain, .chain = ours.chain, .key = ours.key}).ok());
  EXPECT_EQ(Fetch(server.address(), {.ca = theirs.chain}).status().code(),
            StatusCode::kUnavailable);
}

TEST(TlsClient, APeerThatSpeaksClearTextIsNamed) {
  ScriptedPeer peer(1, [](RawSocket& socket, int) {
    socket.Send("HTTP/1.1 400 Bad Request\r\n\r\n");
    socket.ReadToEnd();
  });
  const Status status = Fetch({"127.0.0.1", peer.port()}, {.verify = false}).status();
  EXPECT_EQ(status.code(), StatusCode::kUnavailable);
  EXPECT_THAT(status.message(), HasSubstr("TLS handshake"));
}

TEST(TlsClient, APeerThatSaysNothingIsGivenUp) {
  ScriptedPeer peer(1, [](RawSocket& socket, int) { socket.ReadToEnd(); });
  EXPECT_EQ(Fetch({"127.0.0.1", peer.port()}, {.verify = false}).status().code(),
            StatusCode::kDeadlineExceeded);
}

TEST(TlsClient, SaysWhatItCannotRead) {
  const auto message = [](const TlsClientOptions& options) {
    return TlsContext::CreateClient(options).status().message();
  };
  const TlsOptions pair = MakePair();
  EXPECT_THAT(message({.ca = "x"}), HasSubstr("authority"));
  EXPECT_THAT(message({.chain = "x", .key = pair.key}), HasSubstr("certificate"));
  EXPECT_THAT(message({.chain = pair.chain, .key = "x"}), HasSubstr("private key"));
}

}  // namespace
}  // namespace llmd::http
