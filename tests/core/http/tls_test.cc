#include "llmd/http/tls.h"

#include <gmock/gmock.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>

#include <atomic>
#include <csignal>

#include "certificates.h"
#include "fixture.h"

namespace llmd::http {
namespace {

using testing::Echo;
using ::testing::HasSubstr;
using testing::Latch;
using testing::MakePair;
using testing::RawSocket;
using testing::TestServer;
using testing::With;

// A blocking client.
class Client {
 public:
  explicit Client(uint16_t port, const TlsOptions* ours = nullptr)
      : context_(SSL_CTX_new(TLS_client_method())), bio_(nullptr) {
    if (ours != nullptr) Show(*ours);
    bio_ = BIO_new_ssl_connect(context_);
    const std::string port_text = std::to_string(port);
    BIO_set_conn_hostname(bio_, "127.0.0.1");
    BIO_set_conn_port(bio_, port_text.c_str());
    connected_ = BIO_do_connect(bio_) == 1;
  }
  ~Client() {
    BIO_free_all(bio_);
    SSL_CTX_free(context_);
  }
  bool connected() const { return connected_; }
  // With TLS 1.3 a refusal comes after the client's side of the handshake is done.
  std::string Get(const std::string& target) {
    const std::string request = "GET " + target + " HTTP/1.1\r\nHost: x\r\n\r\n";
    if (!Send(request)) return "";
    return ReadUntil(target + " ");
  }
  bool Send(std::string_view bytes) {
    while (!bytes.empty()) {
      const int n = BIO_write(bio_, bytes.data(), static_cast<int>(bytes.size()));
      if (n <= 0) return false;
      bytes.remove_prefix(static_cast<size_t>(n));
    }
    return true;
  }
  std::string ReadUntil(const std::string& end) {
    std::string seen;
    char buffer[16384];
    while (!seen.ends_with(end)) {
      const int n = BIO_read(bio_, buffer, sizeof buffer);
      if (n <= 0) break;
      seen.append(buffer, static_cast<size_t>(n));
    }
    return seen;
  }
  // The certificate of the server, as PEM.
  std::string Shown() {
    SSL* ssl = nullptr;
    BIO_get_ssl(bio_, &ssl);
    X509* cert = SSL_get1_peer_certificate(ssl);
    BIO* out = BIO_new(BIO_s_mem());
    PEM_write_bio_X509(out, cert);
    X509_free(cert);
    return testing::TextOf(out);
  }

 private:
  void Show(const TlsOptions& ours) {
    BIO* chain = BIO_new_mem_buf(ours.chain.data(), -1);
    BIO* secret = BIO_new_mem_buf(ours.key.data(), -1);
    X509* cert = PEM_read_bio_X509(chain, nullptr, nullptr, nullptr);
    EVP_PKEY* key = PEM_read_bio_PrivateKey(secret, nullptr, nullptr, nullptr);
    SSL_CTX_use_certificate(context_, cert);
    SSL_CTX_use_PrivateKey(context_, key);
    X509_free(cert);
    EVP_PKEY_free(key);
    BIO_free(chain);
    BIO_free(secret);
  }

  SSL_CTX* context_;
  BIO* bio_;
  bool connected_ = false;
};

TEST(Tls, AnswersSeveralRequestsOfAConnection) {
  TestServer server(Echo, With(MakePair()));
  Client client(server.server->port());
  ASSERT_TRUE(client.connected());
  EXPECT_THAT(client.Get("/one"), HasSubstr("GET /one"));
  EXPECT_THAT(client.Get("/two"), HasSubstr("GET /two"));
}

TEST(Tls, CarriesLargeBodiesBothWays) {
  TestServer server(Echo, With(MakePair()));
  Client client(server.server->port());
  std::string body(5 << 20, 'x');
  for (size_t i = 0; i < body.size(); i += 997) body[i] = static_cast<char>('a' + i % 26);
  body += "END";
  ASSERT_TRUE(client.Send("POST /big HTTP/1.1\r\nHost: x\r\nContent-Length: " +
                          std::to_string(body.size()) + "\r\n\r\n"));
  ASSERT_TRUE(client.Send(body));
  const std::string answer = client.ReadUntil("END");
  EXPECT_TRUE(answer.ends_with("POST /big " + body));
}

TEST(Tls, EndsAClientThatSpeaksClearText) {
  TestServer server(Echo, With(MakePair()));
  RawSocket client = server.Connect();
  client.Send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_THAT(client.ReadToEnd(), ::testing::Not(HasSubstr("HTTP/1.1")));
}

TEST(Tls, EndsAClientThatSaysNothing) {
  ServerOptions options = With(MakePair());
  options.head_timeout = std::chrono::milliseconds(100);
  TestServer server(Echo, options);
  RawSocket client = server.Connect();
  EXPECT_EQ(client.ReadToEnd(), "");
}

TEST(Tls, TakesOnlyClientsOfTheAuthority) {
  const TlsOptions friendly = MakePair(), stranger = MakePair();
  TlsOptions server_side = MakePair();
  server_side.client_ca = friendly.chain;
  TestServer server(Echo, With(server_side));
  EXPECT_EQ(Client(server.server->port()).Get("/"), "");
  EXPECT_EQ(Client(server.server->port(), &stranger).Get("/"), "");
  EXPECT_THAT(Client(server.server->port(), &friendly).Get("/in"), HasSubstr("GET /in"));
}

TEST(Tls, ShowsTheCertificateOfTheMoment) {
  const TlsOptions first = MakePair(), second = MakePair();
  std::atomic<bool> changed{false};
  const std::shared_ptr<const TlsContext> contexts[] = {*TlsContext::Create(first),
                                                        *TlsContext::Create(second)};
  ServerOptions options;
  options.tls = [&] { return contexts[changed ? 1 : 0]; };
  TestServer server(Echo, options);
  Client open(server.server->port());
  EXPECT_EQ(open.Shown(), first.chain);
  changed = true;
  EXPECT_EQ(Client(server.server->port()).Shown(), second.chain);
  EXPECT_THAT(open.Get("/on"), HasSubstr("GET /on")) << "the older connection runs on";
}

Latch<bool>* gone = nullptr;
Task<void> WaitForTheEnd(Exchange& exchange) {
  exchange.OnClientGone([] { gone->Set(true); });
  ResponseHead head;
  (void)co_await exchange.Start(std::move(head));
  while ((co_await exchange.Write("x")).ok()) (void)co_await SleepFor(std::chrono::milliseconds(1));
}

TEST(Tls, SeesAClientLeave) {
  Latch<bool> latch;
  gone = &latch;
  TestServer server(WaitForTheEnd, With(MakePair()));
  {
    Client client(server.server->port());
    client.Send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    EXPECT_THAT(client.ReadUntil("x\r\n"), HasSubstr("200"));
  }
  EXPECT_TRUE(latch.Ready());
}

TEST(TlsContext, SaysWhatItCannotRead) {
  const TlsOptions good = MakePair(), other = MakePair();
  EXPECT_TRUE(TlsContext::Create(good).ok());
  EXPECT_THAT(TlsContext::Create({"x", good.key, ""}).status().message(), HasSubstr("certificate"));
  EXPECT_THAT(TlsContext::Create({good.chain, "x", ""}).status().message(), HasSubstr("key"));
  EXPECT_THAT(TlsContext::Create({good.chain, other.key, ""}).status().message(), HasSubstr("key"));
  EXPECT_THAT(TlsContext::Create({good.chain, good.key, "x"}).status().message(),
              HasSubstr("authority"));
}

}  // namespace
}  // namespace llmd::http
