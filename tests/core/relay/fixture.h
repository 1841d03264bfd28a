// A relay with a policy made of functions, between raw sockets on both sides.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "core/http/raw_socket.h"
#include "llmd/http/error_body.h"
#include "llmd/http/relay/relay.h"

namespace llmd::relay::testing {

using http::testing::RawSocket;
using http::testing::ScriptedPeer;

inline Target Loopback(uint16_t port) {
  return *Target::Parse("127.0.0.1:" + std::to_string(port));
}

// What a policy saw, from all loops.
class Journal {
 public:
  void Add(std::string line) {
    const std::lock_guard lock(mutex_);
    lines_.push_back(std::move(line));
  }
  void End(const Outcome& outcome) {
    const std::lock_guard lock(mutex_);
    outcomes_.push_back(outcome);
  }
  std::vector<std::string> lines() const {
    const std::lock_guard lock(mutex_);
    return lines_;
  }
  std::vector<Outcome> outcomes() const {
    const std::lock_guard lock(mutex_);
    return outcomes_;
  }
  // Waits until so many calls have ended, at most 10 s.
  std::vector<Outcome> WaitForEnds(size_t count) const {
    for (int i = 0; i < 2000 && outcomes().size() < count; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    return outcomes();
  }

 private:
  mutable std::mutex mutex_;
  std::vector<std::string> lines_;
  std::vector<Outcome> outcomes_;
};

// Each hook is a function that may be replaced. By default every request goes to `target`, an
// answer passes, and a failure is answered with 502 and its name.
struct Hooks {
  Target target;
  BodyMode mode = BodyMode::kPass;
  SendOptions options;  // but for the target
  std::function<void(Call&)> on_head = [](Call&) {};
  std::function<void(Call&)> on_request;
  std::function<void(Call&, Failure, std::string_view)> on_failure;
  std::function<void(Call&, const http::ResponseView&)> on_response_head;
  std::function<Piece(Call&, std::string_view, bool)> on_bytes = [](Call&, std::string_view piece,
                                                                    bool) { return Piece{piece}; };
  std::function<void(Call&, const http::ResponseView&, std::string_view)> on_collected;
  std::function<void(Call&)> on_timer = [](Call&) {};
  std::function<void(Call&)> on_end = [](Call&) {};
  std::function<void(Loop&)> on_tick = [](Loop&) {};
};

class HookPolicy final : public Policy {
 public:
  HookPolicy(const Hooks& hooks, Journal& journal, Loop& loop)
      : hooks_(hooks), journal_(journal), loop_(loop) {}
  void OnHead(Call& call) override { hooks_.on_head(call); }
  void OnRequest(Call& call) override {
    if (hooks_.on_request) return hooks_.on_request(call);
    SendOptions options = hooks_.options;
    options.target = hooks_.target;
    call.Send(options);
  }
  void OnRefused(Call& call, const Refusal& refusal) override {
    journal_.Add("refused " + std::to_string(refusal.status));
    Policy::OnRefused(call, refusal);
  }
  void OnFailure(Call& call, Failure failure, std::string_view what) override {
    journal_.Add("failure " + std::string(NameOf(failure)));
    if (hooks_.on_failure) return hooks_.on_failure(call, failure, what);
    call.Answer(502, {}, NameOf(failure));
  }
  void OnResponseHead(Call& call, const http::ResponseView& head) override {
    if (hooks_.on_response_head) return hooks_.on_response_head(call, head);
    call.Forward({}, hooks_.mode);
  }
  Piece OnResponseBytes(Call& call, std::string_view piece, bool end) override {
    return hooks_.on_bytes(call, piece, end);
  }
  void OnCollected(Call& call, const http::ResponseView& head, std::string_view body) override {
    hooks_.on_collected(call, head, body);
  }
  void OnTimer(Call& call) override { hooks_.on_timer(call); }
  void OnEnd(Call& call, const Outcome& outcome) override {
    hooks_.on_end(call);
    journal_.End(outcome);
  }
  void OnTick() override { hooks_.on_tick(loop_); }

 private:
  const Hooks& hooks_;
  Journal& journal_;
  Loop& loop_;
};

struct TestRelay {
  explicit TestRelay(Hooks h, RelayOptions options = {}) : hooks(std::move(h)) {
    auto made = Relay::Create(
        std::move(options),
        [this](Loop& loop) { return std::make_unique<HookPolicy>(hooks, journal, loop); },
        Logger());
    EXPECT_TRUE(made.ok()) << made.status().ToString();
    relay = std::move(*made);
  }
  RawSocket Connect(int receive_buffer_bytes = 0) const {
    return RawSocket::Connect(relay->port(), receive_buffer_bytes);
  }
  // Sends and reads to the end of the connection.
  std::string Ask(std::string_view bytes) const {
    RawSocket socket = Connect();
    socket.Send(bytes);
    return socket.ReadToEnd();
  }
  LoopStats Sum() const {
    LoopStats all;
    for (const LoopStats& each : relay->Stats()) {
      all.accepted += each.accepted;
      all.calls += each.calls;
      all.connections += each.connections;
      all.active_calls += each.active_calls;
      all.upstream_open += each.upstream_open;
      all.upstream_idle += each.upstream_idle;
      all.upstream_connects += each.upstream_connects;
      all.replays += each.replays;
      all.handshakes += each.handshakes;
      all.handshake_failures += each.handshake_failures;
    }
    return all;
  }

  Hooks hooks;
  Journal journal;
  std::unique_ptr<Relay> relay;
};

// Answers "<method> <target> <body>" itself.
inline Hooks EchoHooks() {
  Hooks hooks;
  hooks.on_request = [](Call& call) {
    std::string text(call.request().method);
    text.append(" ").append(call.request().target).append(" ").append(call.body());
    call.Answer(200, {}, text);
  };
  return hooks;
}

inline Hooks To(uint16_t port) {
  Hooks hooks;
  hooks.target = Loopback(port);
  return hooks;
}

inline RelayOptions Loops(int loops) {
  RelayOptions options;
  options.loops = loops;
  return options;
}

// Reads one request with a body of the declared length (or none) off a scripted peer's socket.
inline std::string ReadRequest(RawSocket& socket) {
  std::string seen;
  while (seen.find("\r\n\r\n") == std::string::npos && socket.Receive(&seen)) {
  }
  const size_t head = seen.find("\r\n\r\n");
  if (head == std::string::npos) return seen;
  const size_t at = seen.find("Content-Length: ");
  const size_t length = at < head ? std::stoul(seen.substr(at + 16)) : 0;
  while (seen.size() < head + 4 + length && socket.Receive(&seen)) {
  }
  return seen;
}

inline constexpr std::string_view kPost =
    "POST /v1/completions HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}";
inline constexpr std::string_view kGet = "GET /x HTTP/1.1\r\nHost: h\r\n\r\n";
inline constexpr std::string_view kGetClose =
    "GET /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";

// Its body, chunking undone.
inline std::string BodyOf(const std::string& answer) {
  const size_t head = answer.find("\r\n\r\n");
  if (head == std::string::npos) return {};
  std::string rest = answer.substr(head + 4), out;
  if (answer.substr(0, head).find("Transfer-Encoding: chunked") == std::string::npos) return rest;
  while (!rest.empty()) {
    const size_t line = rest.find("\r\n");
    if (line == std::string::npos) break;
    const size_t size = std::stoul(rest.substr(0, line), nullptr, 16);
    if (size == 0) return out;
    out += rest.substr(line + 2, size);
    rest = rest.size() > line + 4 + size ? rest.substr(line + 4 + size) : "";
  }
  return out + "<cut>";
}

}  // namespace llmd::relay::testing
