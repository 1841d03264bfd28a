// What a policy is told of clients' connections, and what it may refuse of them.
#include "fixture.h"

namespace llmd::relay {
namespace {

using std::chrono::milliseconds;
using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::RawSocket;
using ::testing::StartsWith;

constexpr std::string_view kText = "this one has its fill";

// Bounds of all connections together; counts what they hold.
struct Bounds {
  size_t connections = 100, head = 1 << 20, body = 1 << 20;
  std::atomic<size_t> connected{0}, ended{0};
  std::atomic<size_t> held_head{0}, held_body{0}, most_head{0}, most_body{0};
  std::atomic<bool> wrong{false};  // a hook out of order
};

class BoundPolicy final : public Policy {
 public:
  explicit BoundPolicy(Bounds& bounds) : bounds_(bounds) {}

  bool OnConnect(Connection& connection, Refusal& refusal) override {
    bounds_.wrong = bounds_.wrong || connection.context != nullptr ||
                    !connection.peer.starts_with("127.0.0.1:");
    connection.context = this;
    return ++bounds_.connected - bounds_.ended <= bounds_.connections || Refuse(refusal);
  }
  void OnDisconnect(Connection& connection) override {
    bounds_.wrong = bounds_.wrong || connection.context != this;
    ++bounds_.ended;
  }
  bool OnTake(Connection& connection, Held what, size_t bytes, Refusal& refusal) override {
    const bool head = what == Held::kHead;
    std::atomic<size_t>& held = head ? bounds_.held_head : bounds_.held_body;
    if (held + bytes > (head ? bounds_.head : bounds_.body)) return Refuse(refusal);
    held += bytes;
    (head ? bounds_.most_head : bounds_.most_body) = held.load();
    bounds_.wrong = bounds_.wrong || connection.context != this || bytes == 0;
    return true;
  }
  void OnGiveBack(Connection&, Held what, size_t bytes) override {
    (what == Held::kHead ? bounds_.held_head : bounds_.held_body) -= bytes;
  }
  void OnRequest(Call& call) override {
    bounds_.wrong =
        bounds_.wrong || call.connection() == nullptr || call.connection()->context != this;
    call.Answer(200, {}, std::to_string(call.body().size()));
  }
  void OnFailure(Call& call, Failure, std::string_view) override { call.Answer(502, {}, ""); }
  void OnResponseHead(Call& call, const http::ResponseView&) override {
    call.Forward({}, BodyMode::kPass);
  }
  void OnEnd(Call&, const Outcome&) override {}

 private:
  static bool Refuse(Refusal& refusal) {
    refusal = {429, kText, "bound", 3};
    return false;
  }
  Bounds& bounds_;
};

class Connections : public ::testing::Test {
 protected:
  void Open(RelayOptions options = {}) {
    auto made = Relay::Create(
        std::move(options), [this](Loop&) { return std::make_unique<BoundPolicy>(bounds_); },
        Logger());
    ASSERT_TRUE(made.ok()) << made.status().ToString();
    relay_ = std::move(*made);
  }
  RawSocket Connect() const { return RawSocket::Connect(relay_->port()); }
  // Until the relay has seen what was sent, at most 10 s.
  template <typename Condition>
  static bool Settles(Condition condition) {
    for (int i = 0; i < 2000 && !condition(); ++i) std::this_thread::sleep_for(milliseconds(5));
    return condition();
  }
  void ExpectNothingHeld() {
    EXPECT_TRUE(Settles([&] { return relay_->open_connections() == 0; }));
    relay_->Stop(Duration::zero());
    EXPECT_EQ(bounds_.connected, bounds_.ended);
    EXPECT_EQ(bounds_.held_head, 0U);
    EXPECT_EQ(bounds_.held_body, 0U);
    EXPECT_FALSE(bounds_.wrong);
  }

  Bounds bounds_;
  std::unique_ptr<Relay> relay_;
};

TEST_F(Connections, OneThatIsRefusedIsToldWhyAndClosed) {
  bounds_.connections = 1;
  Open();
  RawSocket first = Connect();
  ASSERT_TRUE(Settles([&] { return bounds_.connected == 1; }));
  RawSocket second = Connect();
  EXPECT_THAT(second.ReadToEnd(),
              AllOf(StartsWith("HTTP/1.1 429"), HasSubstr("Retry-After: 3"), HasSubstr(kText)));
  first.Send(testing::kGetClose);
  EXPECT_THAT(first.ReadToEnd(), StartsWith("HTTP/1.1 200"));
  ExpectNothingHeld();
  EXPECT_EQ(bounds_.connected, 2U);
}

TEST_F(Connections, AboveTheRelaysOwnLimitThePolicyIsNotAsked) {
  RelayOptions options;
  options.server.max_connections = 1;
  Open(options);
  RawSocket first = Connect();
  ASSERT_TRUE(Settles([&] { return relay_->open_connections() == 1; }));
  EXPECT_THAT(Connect().ReadToEnd(),
              AllOf(StartsWith("HTTP/1.1 503"), HasSubstr("Retry-After: 1")));
  EXPECT_EQ(bounds_.connected, 1U);
}

TEST_F(Connections, AHeadThatHasOnlyBegunIsCountedAndGivenBackWithItsRequest) {
  Open();
  RawSocket socket = Connect();
  const std::string head = "GET /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\nX-Long: ";
  socket.Send(head);
  EXPECT_TRUE(Settles([&] { return bounds_.held_head == head.size(); }));
  socket.Send("yes\r\n\r\n");
  EXPECT_THAT(socket.ReadToEnd(), StartsWith("HTTP/1.1 200"));
  ExpectNothingHeld();
}

TEST_F(Connections, AHeadThatComesWholeIsNotCounted) {
  Open();
  RawSocket socket = Connect();
  socket.Send(testing::kGetClose);
  EXPECT_THAT(socket.ReadToEnd(), StartsWith("HTTP/1.1 200"));
  ExpectNothingHeld();
  EXPECT_EQ(bounds_.most_head, 0U);
}

TEST_F(Connections, AHeadAboveTheBoundIsRefused) {
  bounds_.head = 1000;
  Open();
  RawSocket socket = Connect();
  socket.Send("GET /x HTTP/1.1\r\nHost: h\r\nX-Long: " + std::string(2000, 'x'));
  EXPECT_THAT(socket.ReadToEnd(), AllOf(StartsWith("HTTP/1.1 429"), HasSubstr(kText)));
  ExpectNothingHeld();
}

TEST_F(Connections, AHeadWhoseClientLeavesIsGivenBack) {
  Open();
  {
    RawSocket socket = Connect();
    socket.Send("GET /x HTTP/1.1\r\nHost: h\r\n");
    EXPECT_TRUE(Settles([&] { return bounds_.held_head > 0; }));
  }
  ExpectNothingHeld();
}

class Bodies : public Connections, public ::testing::WithParamInterface<bool> {
 protected:
  // The head, and `bytes` of a body of 100,000, with a length or in chunks.
  static std::string Begin(size_t bytes) {
    const std::string head = "POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n";
    if (!GetParam()) return head + "Content-Length: 100000\r\n\r\n" + std::string(bytes, 'x');
    return head + "Transfer-Encoding: chunked\r\n\r\n186a0\r\n" + std::string(bytes, 'x');
  }
  static std::string Rest(size_t bytes) {
    return std::string(bytes, 'x') + (GetParam() ? "\r\n0\r\n\r\n" : "");
  }
};
INSTANTIATE_TEST_SUITE_P(Framing, Bodies, ::testing::Bool());

TEST_P(Bodies, AreCountedAsTheyComeAndGivenBackAtTheEnd) {
  Open();
  RawSocket socket = Connect();
  socket.Send(Begin(60'000));
  EXPECT_TRUE(Settles([&] { return bounds_.held_body == 60'000; }));
  socket.Send(Rest(40'000));
  EXPECT_THAT(socket.ReadToEnd(), AllOf(StartsWith("HTTP/1.1 200"), HasSubstr("100000")));
  EXPECT_EQ(bounds_.most_body, 100'000U);
  ExpectNothingHeld();
}

TEST_P(Bodies, AboveTheBoundAreRefused) {
  bounds_.body = 50'000;
  Open();
  RawSocket socket = Connect();
  socket.Send(Begin(60'000));
  EXPECT_THAT(socket.ReadToEnd(), AllOf(StartsWith("HTTP/1.1 429"), HasSubstr(kText)));
  EXPECT_LE(bounds_.most_body, 50'000U);
  ExpectNothingHeld();
}

TEST_P(Bodies, OfClientsThatLeaveAreGivenBack) {
  Open();
  {
    RawSocket socket = Connect();
    socket.Send(Begin(60'000));
    EXPECT_TRUE(Settles([&] { return bounds_.held_body > 0; }));
  }
  ExpectNothingHeld();
}

}  // namespace
}  // namespace llmd::relay
