// TLS on the relay's port for clients.
#include <openssl/err.h>

#include <future>

#include "tls_memory.h"
#include "tls_peer.h"

namespace llmd::relay::testing {
namespace {

using http::testing::MakePair;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

RelayOptions Secure(int loops, const http::TlsOptions& tls = MakePair()) {
  RelayOptions options = Loops(loops);
  const auto context = *http::TlsContext::Create(tls);
  options.server.tls = [context] { return context; };
  return options;
}

// Answers with the client's subject.
Hooks SubjectHooks() {
  Hooks hooks;
  hooks.on_request = [](Call& call) { call.Answer(200, {}, call.client_subject()); };
  return hooks;
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
    EXPECT_THAT(seen, StartsWith("HTTP/1.1 200"));
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
  const int before = client.end().records();
  go = true;
  client.ReadUntil("0\r\n\r\n");
  EXPECT_LE(client.end().records() - before, kEvents + 1);
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

TEST_P(Tls, LargeBodiesAreFullRecords) {
  const std::string body(1 << 20, 'z');
  ScriptedPeer engine(1, [&](RawSocket& socket, int) {
    ReadRequest(socket);
    socket.Send("HTTP/1.1 200 OK\r\nContent-Length: 1048576\r\n\r\n" + body);
    ReadRequest(socket);
  });
  TestRelay relay(To(engine.port()), Secure(GetParam()));
  TlsClient client(relay.relay->port());
  EXPECT_EQ(BodyOf(client.Ask(kGetClose)), body);
  EXPECT_GE(client.end().largest(), 16 * 1024);
  EXPECT_LE(client.end().largest(), 16 * 1024 + 256);
}

TEST_P(Tls, StreamsGoOnWhenTheCertificateChanges) {
  const http::TlsOptions pairs[] = {MakePair(), MakePair()};
  const std::shared_ptr<const http::TlsContext> contexts[] = {*http::TlsContext::Create(pairs[0]),
                                                              *http::TlsContext::Create(pairs[1])};
  std::atomic<bool> changed{false};
  RelayOptions options = Loops(GetParam());
  options.server.tls = [&] { return contexts[changed ? 1 : 0]; };
  std::promise<void> go;
  ScriptedPeer engine(1, [&](RawSocket& socket, int) {
    ReadRequest(socket);
    socket.Send(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        "9\r\ndata: 1\n\n\r\n");
    go.get_future().wait();
    socket.Send("9\r\ndata: 2\n\n\r\n0\r\n\r\n");
    ReadRequest(socket);
  });
  Hooks hooks = To(engine.port());
  hooks.on_head = [](Call& call) {
    if (call.request().target == "/here") call.Answer(200, {}, "here");
  };
  TestRelay relay(hooks, options);
  TlsClient stream(relay.relay->port());
  stream.Send(kGet);
  stream.ReadUntil("data: 1");
  TlsClient other(relay.relay->port());
  other.Send("GET /here HTTP/1.1\r\nHost: h\r\n\r\n");
  other.ReadUntil("here");

  changed = true;
  const auto shown = [](TlsClient& client) {
    X509* cert = SSL_get1_peer_certificate(client.end().ssl());
    BIO* out = BIO_new(BIO_s_mem());
    PEM_write_bio_X509(out, cert);
    X509_free(cert);
    return http::testing::TextOf(out);
  };
  EXPECT_EQ(shown(other), pairs[0].chain);
  ASSERT_TRUE(other.Connect(relay.relay->port(), /*resume=*/true));
  EXPECT_EQ(SSL_session_reused(other.end().ssl()), 0) << "its ticket is of the older certificate";
  EXPECT_EQ(shown(other), pairs[1].chain);
  go.set_value();
  EXPECT_THAT(stream.ReadUntil("0\r\n\r\n"), HasSubstr("data: 2"));
}

TEST_P(Tls, ClientsMustShowACertificateOfTheAuthority) {
  const http::TlsOptions friendly = MakePair(), stranger = MakePair(),
                         expired = MakePair("DNS:test", -60);
  http::TlsOptions ours = MakePair();
  ours.client_ca = friendly.chain + expired.chain;
  TestRelay relay(SubjectHooks(), Secure(GetParam(), ours));
  const auto ask = [&](const http::TlsOptions* with) {
    TlsClient client(with);
    return client.Connect(relay.relay->port()) ? BodyOf(client.Ask(kGetClose)) : "";
  };
  EXPECT_EQ(ask(&friendly), "CN=test");
  for (const http::TlsOptions* wrong :
       {static_cast<const http::TlsOptions*>(nullptr), &stranger, &expired}) {
    // With TLS 1.3 the client's side is done before the server looks.
    EXPECT_EQ(ask(wrong), "");
    TlsClient client(wrong);
    char byte;
    if (client.Connect(relay.relay->port())) (void)SSL_read(client.end().ssl(), &byte, 1);
    EXPECT_THAT(ERR_reason_error_string(ERR_peek_last_error()), HasSubstr("alert"));
    ERR_clear_error();
  }
  EXPECT_EQ(relay.Sum().handshakes, 1U);
  EXPECT_EQ(relay.Sum().handshake_failures, 6U);
}

TEST(TlsSubject, IsTheFirstNameOfACertificateWithoutOne) {
  const http::TlsOptions friendly = MakePair("URI:spiffe://a/b", 3600, /*subject=*/nullptr);
  http::TlsOptions ours = MakePair();
  ours.client_ca = friendly.chain;
  TestRelay relay(SubjectHooks(), Secure(1, ours));
  TlsClient client(&friendly);
  ASSERT_TRUE(client.Connect(relay.relay->port()));
  EXPECT_EQ(BodyOf(client.Ask(kGetClose)), "URI:spiffe://a/b");
}

TEST(TlsSubject, IsEmptyWhereNoneIsAskedFor) {
  TestRelay relay(SubjectHooks(), Secure(1));
  const http::TlsOptions unasked = MakePair();
  TlsClient client(&unasked);
  ASSERT_TRUE(client.Connect(relay.relay->port()));
  EXPECT_EQ(BodyOf(client.Ask(kGetClose)), "");
}

TEST_P(Tls, SessionsAreResumed) {
  const http::TlsOptions friendly = MakePair();
  http::TlsOptions ours = MakePair();
  ours.client_ca = friendly.chain;
  TestRelay relay(SubjectHooks(), Secure(GetParam(), ours));
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    TlsClient client(&friendly);
    SSL_CTX_set_max_proto_version(client.context(), version);
    ASSERT_TRUE(client.Connect(relay.relay->port()));
    EXPECT_EQ(BodyOf(client.Ask(kGetClose)), "CN=test");  // a ticket comes with it
    ASSERT_TRUE(client.Connect(relay.relay->port(), /*resume=*/true));
    EXPECT_EQ(SSL_session_reused(client.end().ssl()), 1) << version;
    EXPECT_EQ(BodyOf(client.Ask(kGetClose)), "CN=test") << "who it is, is known still";
  }
}

TEST_P(Tls, HandshakesMayComeInPieces) {
  TestRelay relay(EchoHooks(), Secure(GetParam()));
  RawSocket socket = relay.Connect();
  SSL_CTX* context = SSL_CTX_new(TLS_client_method());
  SSL* session = SSL_new(context);
  BIO* in = BIO_new(BIO_s_mem());
  BIO* out = BIO_new(BIO_s_mem());
  SSL_set_bio(session, in, out);
  SSL_set_connect_state(session);
  const auto flush = [&] {
    char byte;
    while (BIO_read(out, &byte, 1) == 1) socket.Send({&byte, 1});
  };
  const auto more = [&] {
    std::string seen;
    if (!socket.Receive(&seen)) return false;
    return BIO_write(in, seen.data(), static_cast<int>(seen.size())) > 0;
  };
  while (SSL_do_handshake(session) != 1) {
    flush();
    ASSERT_TRUE(more());
  }
  SSL_write(session, kGetClose.data(), static_cast<int>(kGetClose.size()));
  flush();
  char answer[4096];
  int got = 0;
  while ((got = SSL_read(session, answer, sizeof answer)) <= 0) {
    flush();
    ASSERT_TRUE(more());
  }
  EXPECT_THAT(std::string(answer, static_cast<size_t>(got)), HasSubstr("GET /x"));
  SSL_free(session);
  SSL_CTX_free(context);
}

TEST(TlsHandshake, IsNotDoneTwice) {
  TestRelay relay(EchoHooks(), Secure(1));
  TlsClient client;
  SSL_CTX_set_max_proto_version(client.context(), TLS1_2_VERSION);
  ASSERT_TRUE(client.Connect(relay.relay->port()));
  ASSERT_EQ(SSL_renegotiate(client.end().ssl()), 1);
  EXPECT_NE(SSL_do_handshake(client.end().ssl()), 1);
  EXPECT_EQ(ERR_GET_REASON(ERR_peek_last_error()), SSL_R_NO_RENEGOTIATION);
  ERR_clear_error();
  EXPECT_EQ(relay.Sum().handshakes, 1U);
}

TEST(TlsHandshake, TakesAeadSuitesAndHttp11Alone) {
  TestRelay relay(EchoHooks(), Secure(1));
  const auto connects = [&](const std::function<void(SSL_CTX*)>& limit) {
    TlsClient client;
    limit(client.context());
    const bool done = client.Connect(relay.relay->port());
    ERR_clear_error();
    return done;
  };
  const auto suite = [&](const char* name) {
    return connects([name](SSL_CTX* context) {
      SSL_CTX_set_max_proto_version(context, TLS1_2_VERSION);
      EXPECT_EQ(SSL_CTX_set_cipher_list(context, name), 1);
    });
  };
  EXPECT_TRUE(suite("ECDHE-ECDSA-AES128-GCM-SHA256"));
  EXPECT_TRUE(suite("ECDHE-ECDSA-CHACHA20-POLY1305"));
  EXPECT_FALSE(suite("ECDHE-ECDSA-AES128-SHA"));
  EXPECT_FALSE(suite("ECDHE-ECDSA-AES256-SHA384"));
  EXPECT_FALSE(connects([](SSL_CTX* context) {
    SSL_CTX_set_security_level(context, 0);
    SSL_CTX_set_min_proto_version(context, TLS1_VERSION);
    SSL_CTX_set_max_proto_version(context, TLS1_1_VERSION);
  }));
  const auto alpn = [&](std::string_view protocols) {
    return connects([protocols](SSL_CTX* context) {
      SSL_CTX_set_alpn_protos(context, reinterpret_cast<const unsigned char*>(protocols.data()),
                              static_cast<unsigned>(protocols.size()));
    });
  };
  EXPECT_TRUE(alpn("\x02h2\x08http/1.1"));
  EXPECT_FALSE(alpn("\x02h2"));
}

TEST(TlsHandshake, ARequestInClearTextIsToldSo) {
  TestRelay relay(EchoHooks(), Secure(1));
  for (const std::string_view request : {kGet, kPost}) {
    const std::string answer = relay.Ask(request);
    EXPECT_THAT(answer, StartsWith("HTTP/1.1 400"));
    EXPECT_THAT(answer, HasSubstr("https"));
  }
  EXPECT_EQ(relay.journal.lines(), (std::vector<std::string>{"refused 400", "refused 400"}));
}

TEST(TlsHandshake, WhatIsNeitherIsClosed) {
  TestRelay relay(EchoHooks(), Secure(1));
  EXPECT_THAT(relay.Ask("\x01\x02\x03\x04\x05\x06\x07\x08 nothing of the kind"),
              Not(HasSubstr("HTTP/")));
  EXPECT_EQ(relay.Sum().handshake_failures, 1U);
  EXPECT_TRUE(relay.journal.lines().empty());
}

TEST(TlsHandshake, HasADeadline) {
  RelayOptions quick = Secure(1);
  quick.server.head_timeout = std::chrono::milliseconds(100);
  TestRelay relay(EchoHooks(), quick);
  for (const std::string_view begun : {"", "\x16\x03\x01\x02"}) {
    RawSocket socket = relay.Connect();
    socket.Send(begun);
    EXPECT_EQ(socket.ReadToEnd(), "");
    EXPECT_TRUE(socket.eof() || socket.reset());
  }
}

TEST(TlsHandshake, CountsAsAConnection) {
  RelayOptions two = Secure(1);
  two.server.max_connections = 2;
  TestRelay relay(EchoHooks(), two);
  RawSocket silent[] = {relay.Connect(), relay.Connect()};
  while (relay.Sum().accepted < 2) std::this_thread::yield();
  EXPECT_FALSE(TlsClient().Connect(relay.relay->port()));
  ERR_clear_error();
  silent[0].Close();
  while (relay.relay->open_connections() > 1) std::this_thread::yield();
  TlsClient client(relay.relay->port());
  EXPECT_THAT(client.Ask(kGetClose), StartsWith("HTTP/1.1 200"));
}

// The end of such a body is the connection's, so only a close_notify makes it whole.
TEST_P(Tls, ACutAnswerHasNoOrderlyEnd) {
  for (const bool whole : {true, false}) {
    ScriptedPeer engine(1, [&](RawSocket& socket, int) {
      ReadRequest(socket);
      socket.Send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
      if (whole) socket.Send("0\r\n\r\n");
    });
    TestRelay relay(To(engine.port()), Secure(GetParam()));
    TlsClient client(relay.relay->port());
    const std::string answer = client.Ask("GET /x HTTP/1.0\r\nHost: h\r\n\r\n");
    EXPECT_EQ(client.end().ended(), whole) << answer;
    ERR_clear_error();
  }
}

TEST(TlsMemory, AnEventAllocatesNothing) {
  ASSERT_TRUE(tls_counted);
  constexpr int kEvents = 200;
  std::atomic<int> seen{0};
  ScriptedPeer engine(1, [&](RawSocket& socket, int) {
    ReadRequest(socket);
    socket.Send(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (int i = 0; i < kEvents; ++i) {
      socket.Send("9\r\ndata: 1\n\n\r\n");
      while (seen <= i) std::this_thread::yield();
    }
    socket.Send("0\r\n\r\n");
    ReadRequest(socket);
  });
  Hooks hooks = To(engine.port());
  hooks.mode = BodyMode::kWatch;
  size_t first = 0, last = 0;  // of the loop's thread
  hooks.on_bytes = [&](Call&, std::string_view piece, bool) {
    const int n = seen++;
    if (n == kEvents / 2) first = tls_allocations;
    if (n == kEvents - 1) last = tls_allocations;
    return Piece{piece};
  };
  TestRelay relay(hooks, Secure(1));
  TlsClient client(relay.relay->port());
  client.Send(kGet);
  client.ReadUntil("0\r\n\r\n");
  EXPECT_GT(first, 0U);
  // A machine that stands still for a quarter of a second gives them back between two events.
  EXPECT_LT(last - first, kEvents / 10U);
}

TEST(TlsMemory, AnIdleConnectionHoldsNoBuffers) {
  TestRelay relay(EchoHooks(), Secure(1));
  constexpr size_t kClients = 20;
  std::vector<std::unique_ptr<TlsClient>> clients;
  const size_t before_all = tls_bytes;
  size_t busy =
      0;  // what one takes that has just read and written; others may have cooled meanwhile
  for (size_t i = 0; i < kClients; ++i) {
    const size_t before = tls_bytes;
    clients.push_back(std::make_unique<TlsClient>());
    SSL_CTX_set_mode(clients.back()->context(), SSL_MODE_RELEASE_BUFFERS);
    ASSERT_TRUE(clients.back()->Connect(relay.relay->port()));
    clients.back()->Send(kGet);
    clients.back()->ReadUntil("GET /x");
    if (const size_t now = tls_bytes; now > before) busy = std::max(busy, now - before);
  }
  // Of the buffers for a read and a write, of 16 KiB and more each, one at least is given back.
  ASSERT_GT(busy, 16U * 1024);
  const size_t idle = before_all + kClients * (busy - 16 * 1024);
  for (int i = 0; i < 1000 && tls_bytes > idle; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_LE(tls_bytes, idle);
  for (auto& client : clients) {
    client->Send(kGet);
    EXPECT_THAT(client->ReadUntil("GET /x"), HasSubstr("GET /x"));
  }
}

}  // namespace
}  // namespace llmd::relay::testing
