// What the server answers on the wire, byte by byte as RFC 9112 sees it.
#include <gtest/gtest.h>

#include <utility>

#include "fixture.h"

namespace llmd::http {
namespace {
using testing::Echo;
using testing::RawSocket;
using testing::TestServer;

const char kHost[] = "Host: a\r\n";

int CountAnswers(const std::string& wire) {
  return RawSocket::Count(wire, "HTTP/1.1 ");
}

TEST(ServerWire, RefusesMalformedRequestsAndCloses) {
  TestServer server(Echo);
  const struct {
    std::string bytes;
    const char* status;
  } cases[] = {
      {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: "
       "chunked\r\n\r\n0\r\n\r\n",
       "400"},
      {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", "400"},
      {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", "400"},
      {"GET / HTTP/1.1\r\nHost : a\r\n\r\n", "400"},
      {"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n", "400"},
      {"GET / HTTP/1.1\r\n\r\n", "400"},
      {"GET / HTTP/3.0\r\nHost: a\r\n\r\n", "505"},
      {"\x16\x03\x01\x02", "400"},
      {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "400"},
      {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloXX", "400"},
      {"GET / HTTP/1.1\r\nHost: a\r\nX: " + std::string(70000, 'x') + "\r\n\r\n", "431"},
      {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000000\r\n\r\n", "413"},
  };
  for (const auto& c : cases) {
    RawSocket client = server.Connect();
    // Whatever follows must not be taken for a request.
    client.Send(c.bytes + "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
    const std::string answer = client.ReadToEnd();
    EXPECT_TRUE(answer.starts_with(std::string("HTTP/1.1 ") + c.status))
        << c.bytes.substr(0, 80) << "\n"
        << answer;
    EXPECT_EQ(CountAnswers(answer), 1) << c.bytes.substr(0, 80);
    EXPECT_NE(answer.find("Connection: close\r\n"), std::string::npos);
    EXPECT_EQ(answer.find("smuggled"), std::string::npos);
  }
}

TEST(ServerWire, BoundsTheNumberOfHeaderLines) {
  TestServer server(Echo);
  std::string request = std::string("GET / HTTP/1.1\r\n") + kHost;
  for (int i = 0; i < 201; ++i) request += "X: y\r\n";
  RawSocket client = server.Connect();
  client.Send(request + "\r\n");
  EXPECT_TRUE(client.ReadToEnd().starts_with("HTTP/1.1 431"));
}

TEST(ServerWire, KeepsTheConnectionAndAnswersPipelinedRequestsInOrder) {
  TestServer server(Echo);
  RawSocket client = server.Connect();
  std::string burst = "\r\n";
  for (int i = 0; i < 50; ++i) {
    burst +=
        "POST /" + std::to_string(i) + " HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\r\n";
  }
  client.Send(burst + "GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
  const std::string answers = client.ReadToEnd();
  EXPECT_EQ(CountAnswers(answers), 51);
  size_t at = 0;
  for (int i = 0; i < 50; ++i) {
    at = answers.find("POST /" + std::to_string(i) + " abc", at);
    ASSERT_NE(at, std::string::npos) << i;
  }
  EXPECT_TRUE(answers.ends_with("GET /last "));
}

TEST(ServerWire, AnswersPipelinedRequestsOfAClientThatStoppedSending) {
  TestServer server(Echo);
  RawSocket client = server.Connect();
  client.Send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n");
  client.ShutdownSend();
  EXPECT_EQ(CountAnswers(client.ReadToEnd()), 2);
}

TEST(ServerWire, ReadsChunkedUploadsInOneByteChunks) {
  TestServer server(Echo);
  RawSocket client = server.Connect();
  std::string wire = "POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", content;
  for (int i = 0; i < 2000; ++i) {
    content += static_cast<char>('a' + i % 26);
    wire += "1;ext=1\r\n" + content.substr(content.size() - 1) + "\r\n";
  }
  wire += "0\r\nTrailer: t\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
  for (size_t at = 0; at < wire.size(); at += 997) client.Send(wire.substr(at, 997));
  const std::string answers = client.ReadToEnd();
  EXPECT_NE(answers.find("POST /c " + content), std::string::npos);
  EXPECT_TRUE(answers.ends_with("GET /next "));
}

TEST(ServerWire, ReadsALargeBodyWhole) {
  TestServer server(Echo);
  std::string body(3 << 20, 'x');
  for (size_t i = 0; i < body.size(); i += 1000) body[i] = static_cast<char>('0' + i / 1000 % 10);
  RawSocket client = server.Connect();
  client.Send("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: " +
              std::to_string(body.size()) + "\r\n\r\n" + body);
  const std::string answer = client.ReadToEnd();
  EXPECT_TRUE(answer.ends_with("POST / " + body));
}

TEST(ServerWire, SendsContinueOnlyWhenTheBodyIsWanted) {
  TestServer server(Echo);
  RawSocket client = server.Connect();
  client.Send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
  EXPECT_EQ(client.ReadUntil("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
  client.Send("hi");
  EXPECT_TRUE(client.ReadUntil("POST / hi").starts_with("HTTP/1.1 200"));
  client.Send(
      "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 999999999999\r\n\r\n");
  EXPECT_TRUE(client.ReadToEnd().starts_with("HTTP/1.1 413"));
}

TEST(ServerWire, BoundsAChunkedBody) {
  ServerOptions options;
  options.max_body_bytes = 10;
  TestServer server(Echo, options);
  RawSocket client = server.Connect();
  client.Send(
      "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nb\r\nhello world\r\n");
  EXPECT_TRUE(client.ReadToEnd().starts_with("HTTP/1.1 413"));
}

Task<void> StreamTwo(Exchange& exchange) {
  ResponseHead head;
  (void)co_await exchange.Start(std::move(head));
  (void)co_await exchange.Write("one");
  (void)co_await exchange.Write("twenty-two");
  (void)co_await exchange.Finish();
}

TEST(ServerWire, StreamsChunkedTo11AndDelimitedByCloseTo10) {
  TestServer server(StreamTwo);
  RawSocket client = server.Connect();
  client.Send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
  const std::string chunked = client.ReadUntil("0\r\n\r\n");
  EXPECT_NE(chunked.find("Transfer-Encoding: chunked\r\n"), std::string::npos);
  EXPECT_TRUE(chunked.ends_with("\r\n\r\n3\r\none\r\na\r\ntwenty-two\r\n0\r\n\r\n"));
  client.Send("HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
  EXPECT_TRUE(client.ReadToEnd().ends_with("\r\n\r\n"));
  RawSocket old = server.Connect();
  old.Send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  const std::string plain = old.ReadToEnd();
  EXPECT_EQ(plain.find("chunked"), std::string::npos);
  EXPECT_NE(plain.find("Connection: close\r\n"), std::string::npos);
  EXPECT_TRUE(plain.ends_with("\r\n\r\nonetwenty-two"));
}

TEST(ServerWire, KeepsAn10ConnectionThatAsksForIt) {
  TestServer server(Echo);
  RawSocket client = server.Connect();
  client.Send("GET /1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  EXPECT_NE(client.ReadUntil("GET /1 ").find("Connection: keep-alive\r\n"), std::string::npos);
  client.Send("GET /2 HTTP/1.0\r\n\r\n");
  EXPECT_TRUE(client.ReadToEnd().ends_with("GET /2 "));
}

TEST(ServerWire, CutsTricklesAndIdleConnections) {
  ServerOptions options;
  options.head_timeout = options.body_timeout = options.idle_timeout =
      std::chrono::milliseconds(50);
  TestServer server(Echo, options);
  RawSocket head = server.Connect(), body = server.Connect(), idle = server.Connect();
  head.Send("GET / HT");
  body.Send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab");
  EXPECT_TRUE(head.ReadToEnd().starts_with("HTTP/1.1 408"));
  EXPECT_TRUE(body.ReadToEnd().starts_with("HTTP/1.1 408"));
  EXPECT_EQ(idle.ReadToEnd(), "");
  EXPECT_TRUE(idle.eof());
}

TEST(ServerWire, TurnsConnectionsAwayAtTheLimit) {
  ServerOptions options;
  options.max_connections = 1;
  TestServer server(Echo, options);
  RawSocket first = server.Connect();
  first.Send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
  first.ReadUntil("GET / ");
  RawSocket second = server.Connect();
  EXPECT_TRUE(second.ReadToEnd().starts_with("HTTP/1.1 503"));
}

}  // namespace
}  // namespace llmd::http
