// Views into what an upstream sent hold until what they show has gone to the client. Under
// AddressSanitizer a block that was given back must not be read (buffers.cc).
#include "fixture.h"

namespace llmd::relay::testing {
namespace {

using std::chrono::milliseconds;

std::string Letters(size_t bytes, int from) {
  std::string out(bytes, 'a');
  for (size_t i = 0; i < bytes; ++i) out[i] = static_cast<char>('a' + (i / 7 + from) % 26);
  return out;
}

// Answers each request on one connection with what `answer` says of its number, until its end.
void AnswerAll(RawSocket& socket, std::atomic<int>& count,
               const std::function<void(RawSocket&, int)>& answer) {
  std::string seen;
  while (true) {
    for (size_t end = seen.find("\r\n\r\n"); end != std::string::npos;
         end = seen.find("\r\n\r\n")) {
      seen.erase(0, end + 4);
      answer(socket, count++);
    }
    if (!socket.Receive(&seen)) return;
  }
}

// Reads on until `text` is there behind `from`; where it begins.
size_t Await(RawSocket& socket, std::string& seen, std::string_view text, size_t from) {
  while (seen.find(text, from) == std::string::npos && socket.Receive(&seen)) {
  }
  return seen.find(text, from);
}

const std::string kLongValue(3000, 'v');

// Waits until `count` has moved for 200 ms no more.
void WaitForStandstill(const std::atomic<int>& count) {
  for (int before = -1, still = 0; still < 10; std::this_thread::sleep_for(milliseconds(20))) {
    still = count == before ? still + 1 : 0;
    before = count;
  }
}

// The bytes of an answer wait in the upstream's own buffer, as its head is forwarded late. Clients
// that take nothing meanwhile get them by way of another buffer.
class Late : public ::testing::TestWithParam<BodyMode> {};
INSTANTIATE_TEST_SUITE_P(Modes, Late,
                         ::testing::Values(BodyMode::kPass, BodyMode::kWatch, BodyMode::kEdit));

TEST_P(Late, AnswersToASlowClientAreTheEnginesOwn) {
  constexpr int kRequests = 1500;
  constexpr size_t kBytes = 6000;
  std::atomic<int> asked{0};
  ScriptedPeer peer(1, [&](RawSocket& socket, int) {
    AnswerAll(socket, asked, [](RawSocket& to, int n) {
      to.Send("HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(kBytes) + "\r\n\r\n" +
              Letters(kBytes, n));
    });
  });
  Hooks hooks = To(peer.port());
  hooks.on_response_head = [mode = GetParam()](Call& call, const http::ResponseView&) {
    call.ref().Post([mode](Call& waiting) {
      // A head that is longer than the engine's moves the body to where other bytes of it stood.
      const HeaderEdit line{"X-Long", kLongValue};
      waiting.Forward({&line, 1}, mode);
    });
  };
  TestRelay relay(hooks);
  RawSocket socket = relay.Connect(/*receive_buffer_bytes=*/8192);
  std::thread sender([&] {
    for (int i = 0; i < kRequests; ++i) socket.Send(kGet);
  });
  WaitForStandstill(asked);
  std::string seen;
  for (int i = 0; i < kRequests; ++i) {
    const size_t head = Await(socket, seen, "\r\n\r\n", 0);
    ASSERT_NE(head, std::string::npos) << i;
    const bool chunked = seen.substr(0, head).find("chunked") != std::string::npos;
    const size_t body = chunked ? Await(socket, seen, "\r\n", head + 4) + 2 : head + 4;
    const size_t end = body + kBytes + (chunked ? 7 : 0);
    while (seen.size() < end && socket.Receive(&seen)) {
    }
    if (seen.compare(body, kBytes, Letters(kBytes, i)) != 0) {
      ADD_FAILURE() << "answer " << i << " is another one";
      break;
    }
    seen.erase(0, end);
  }
  sender.join();
}

// A head in two reads leaves the rest in the upstream's buffer as well.
TEST(Split, HeadsDoNotHarmTheirBodies) {
  for (const bool close : {false, true}) {
    const std::string body = Letters(3000, 1);
    ScriptedPeer peer(1, [&](RawSocket& socket, int) {
      ReadRequest(socket);
      socket.Send("HTTP/1.1 200 OK\r\n");
      std::this_thread::sleep_for(milliseconds(20));
      socket.Send(std::string(close ? "Connection: close\r\n" : "") +
                  "Transfer-Encoding: chunked\r\n\r\nbb8\r\n" + body + "\r\n0\r\n\r\n");
      ReadRequest(socket);
    });
    TestRelay relay(To(peer.port()));
    EXPECT_EQ(BodyOf(relay.Ask(kGetClose)), body);
  }
}

// An own answer, and another leg, may be made of what the upstream said.
TEST(Head, OfAnAnswerMayBePutIntoOnesOwn) {
  ScriptedPeer peer(1, [&](RawSocket& socket, int) {
    ReadRequest(socket);
    socket.Send("HTTP/1.1 503 Busy\r\n");
    std::this_thread::sleep_for(milliseconds(20));
    socket.Send("X-Why: because\r\nContent-Length: 4\r\n\r\nfull");
    ReadRequest(socket);
  });
  Hooks hooks = To(peer.port());
  hooks.on_response_head = [](Call& call, const http::ResponseView& head) {
    const HeaderEdit why{"X-Why", head.headers.lines[0].value};
    call.Answer(503, {&why, 1}, call.whole_body());
  };
  TestRelay relay(hooks);
  const std::string seen = relay.Ask(kGetClose);
  EXPECT_THAT(seen, ::testing::HasSubstr("X-Why: because\r\n"));
  EXPECT_EQ(BodyOf(seen), "full");
}

}  // namespace
}  // namespace llmd::relay::testing
