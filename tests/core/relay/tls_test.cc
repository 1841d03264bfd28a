// TLS on both sides of the relay.
#include <openssl/ssl.h>

#include <future>

#include "core/http/certificates.h"
#include "fixture.h"

namespace llmd::relay::testing {
namespace {

// A blocking TLS client over a raw socket's descriptor.
class TlsClient {
 public:
  explicit TlsClient(uint16_t port) : context_(SSL_CTX_new(TLS_client_method())) {
    fd_ = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    const timeval limit{10, 0};
    setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    session_ = SSL_new(context_);
    SSL_set_fd(session_, fd_);
    SSL_set_msg_callback(
        session_, [](int write, int, int type, const void* data, size_t, SSL*, void* arg) {
          // The header of a record that came: its type is the first byte.
          if (write == 0 && type == SSL3_RT_HEADER && static_cast<const uint8_t*>(data)[0] == 23)
            ++static_cast<TlsClient*>(arg)->records_;
        });
    SSL_set_msg_callback_arg(session_, this);
    EXPECT_EQ(SSL_connect(session_), 1);
  }
  ~TlsClient() {
    SSL_free(session_);
    SSL_CTX_free(context_);
    ::close(fd_);
  }
  void Send(std::string_view bytes) {
    EXPECT_EQ(SSL_write(session_, bytes.data(), static_cast<int>(bytes.size())),
              static_cast<int>(bytes.size()));
  }
  std::string ReadUntil(std::string_view text) {
    std::string seen;
    char buffer[65536];
    while (seen.find(text) == std::string::npos) {
      const int n = SSL_read(session_, buffer, sizeof buffer);
      if (n <= 0) break;
      seen.append(buffer, static_cast<size_t>(n));
    }
    return seen;
  }
  std::string ReadToEnd() { return ReadUntil(std::string_view("\0never", 6)); }
  int records() const { return records_; }

 private:
  SSL_CTX* context_;
  SSL* session_ = nullptr;
  int fd_ = -1;
  int records_ = 0;
};

RelayOptions Secure(int loops) {
  RelayOptions options = Loops(loops);
  const auto context = *http::TlsContext::Create(http::testing::MakePair());
  options.server.tls = [context] { return context; };
  return options;
}

class Tls : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Loops, Tls, ::testing::Values(1, 4));

TEST_P(Tls, ServesRequestsOfAnySize) {
  TestRelay relay(EchoHooks(), Secure(GetParam()));
  TlsClient client(relay.relay->port());
  for (const size_t bytes : {size_t{3}, size_t{20'000}, size_t{300'000}}) {
    client.Send("POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: " + std::to_string(bytes) +
                "\r\n\r\n" + std::string(bytes - 1, 'b') + "e");
    const std::string seen = client.ReadUntil("be");
    EXPECT_THAT(seen, ::testing::StartsWith("HTTP/1.1 200"));
    EXPECT_EQ(BodyOf(seen).size(), bytes + 8);
  }
}

TEST_P(Tls, AnEventIsOneRecord) {
  std::atomic<bool> go{false};
  constexpr int kEvents = 20;
  ScriptedPeer engine(1, [&](RawSocket& socket, int) {
    ReadRequest(socket);
    socket.Send(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
    while (!go) std::this_thread::yield();
    for (int i = 0; i < kEvents; ++i) {
      socket.Send("9\r\ndata: 1\n\n\r\n");
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    socket.Send("0\r\n\r\n");
    ReadRequest(socket);
  });
  TestRelay relay(To(engine.port()), Secure(GetParam()));
  TlsClient client(relay.relay->port());
  client.Send(kGet);
  client.ReadUntil("\r\n\r\n");
  const int before = client.records();
  go = true;
  client.ReadUntil("0\r\n\r\n");
  EXPECT_LE(client.records() - before, kEvents + 1);
}

TEST_P(Tls, LargeAnswersPassToSlowReaders) {
  const std::string body(5'000'000, 'z');
  ScriptedPeer engine(1, [&](RawSocket& socket, int) {
    ReadRequest(socket);
    socket.Send("HTTP/1.1 200 OK\r\nContent-Length: 5000000\r\n\r\n" + body);
    ReadRequest(socket);
  });
  TestRelay relay(To(engine.port()), Secure(GetParam()));
  TlsClient client(relay.relay->port());
  client.Send(kGetClose);
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  EXPECT_EQ(BodyOf(client.ReadToEnd()), body);
}

TEST_P(Tls, AClientThatLeavesIsSeen) {
  std::promise<void> asked, left;
  ScriptedPeer engine(1, [&](RawSocket& socket, int) {
    ReadRequest(socket);
    asked.set_value();
    ReadRequest(socket);
    left.set_value();
  });
  TestRelay relay(To(engine.port()), Secure(GetParam()));
  {
    TlsClient client(relay.relay->port());
    client.Send(kGet);
    asked.get_future().wait();
  }
  EXPECT_EQ(left.get_future().wait_for(std::chrono::seconds(1)), std::future_status::ready);
}

TEST(TlsHandshake, OneThatIsNoneCloses) {
  TestRelay relay(EchoHooks(), Secure(1));
  EXPECT_THAT(relay.Ask("GET / HTTP/1.1\r\nHost: h\r\n\r\n"),
              ::testing::Not(::testing::HasSubstr("200")));
  RelayOptions quick = Secure(1);
  quick.server.head_timeout = std::chrono::milliseconds(100);
  TestRelay silent(EchoHooks(), quick);
  RawSocket socket = silent.Connect();
  socket.ReadToEnd();
  EXPECT_TRUE(socket.eof() || socket.reset());
}

TEST_P(Tls, UpstreamsMaySpeakItToo) {
  // The upstream is a relay that serves TLS.
  TestRelay engine(EchoHooks(), Secure(1));
  static const UpstreamTls tls{*http::TlsContext::CreateClient({.verify = false}), "127.0.0.1"};
  Hooks hooks = To(engine.relay->port());
  hooks.options.tls = &tls;
  TestRelay relay(hooks, Loops(GetParam()));
  RawSocket socket = relay.Connect();
  for (int i = 0; i < 3; ++i) {
    socket.Send("POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 100001\r\n\r\n" +
                std::string(100'000, 'b') + "e");
    EXPECT_THAT(socket.ReadUntil("be"), ::testing::HasSubstr("POST /p bbb"));
  }
  EXPECT_EQ(relay.Sum().upstream_connects, 1U);
}

TEST(TlsUpstream, AStrangerIsRefused) {
  TestRelay engine(EchoHooks(), Secure(1));
  static const UpstreamTls tls{*http::TlsContext::CreateClient({}), "127.0.0.1"};
  Hooks hooks = To(engine.relay->port());
  hooks.options.tls = &tls;
  EXPECT_EQ(BodyOf(TestRelay(hooks).Ask(kGetClose)), "refused");
}

}  // namespace
}  // namespace llmd::relay::testing
