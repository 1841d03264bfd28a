// A gateway in front of a scripted Director, with engines of a test behind it.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <deque>
#include <mutex>
#include <thread>

#include "core/http/raw_socket.h"
#include "default_doors.h"
#include "gateway/front.h"
#include "llmd/json.h"

namespace llmd::gateway {

using http::testing::RawSocket;
using http::testing::ScriptedPeer;
using std::chrono::milliseconds;
using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::Pair;
using testing::StartsWith;

// Gives the scripted routings in turn (the last for ever) and records what it was asked and shown.
class FakeDirector final : public sched::Director {
 public:
  struct Asked {
    sched::HeaderList headers;
    std::string body, first_target;
    bool has_body = false, again = false;
    std::vector<sched::EndpointId> exclude;
  };

  void Route(sched::RequestInput input, std::function<void(sched::Routing)> done) override {
    std::this_thread::sleep_for(slow);
    sched::Routing routing = Locked(input);
    if (input.state != nullptr) *input.state = routing.state;
    done(std::move(routing));
  }
  bool RouteNow(sched::RequestInput input, sched::Routing& routing,
                std::function<void(sched::Routing)> later) override {
    const std::lock_guard lock(mutex_);
    sched::Routing next = Next(input);
    if (queues) {
      waiting = [later = std::move(later), next] { later(next); };
      return false;
    }
    routing = std::move(next);
    return true;
  }
  void Cancel(const std::shared_ptr<sched::RequestState>&) override { ++cancels; }
  void OnServed(const std::shared_ptr<sched::RequestState>&, std::string_view by) override {
    const std::lock_guard lock(mutex_);
    served = by;
  }
  sched::HeaderList OnResponseHeaders(const std::shared_ptr<sched::RequestState>&, int code,
                                      const sched::HeaderList&) override {
    status = code;
    sched::HeaderList set;
    set.emplace_back("x-from-picker", "1");
    return set;
  }
  bool OnResponseBody(const std::shared_ptr<sched::RequestState>&, std::string_view chunk, bool end,
                      std::string* replaced) override {
    const std::lock_guard lock(mutex_);
    response += chunk;
    ends += end ? 1 : 0;
    if (replacement.empty()) return false;
    *replaced = replacement;
    return true;
  }
  bool wants_response_body() const override { return true; }
  bool ready() const override { return true; }
  std::vector<sched::EndpointInfo> Endpoints() const override { return {}; }
  StatusOr<std::string> Explain(std::string_view) const override { return NotFound("none"); }
  void Stop() override {}

  std::deque<sched::Routing> script;
  bool queues = false;
  milliseconds slow{0};
  std::string replacement;
  std::function<void()> waiting;
  std::vector<Asked> asked;
  std::function<void(const sched::Denial&)> evict;  // the last request
  std::vector<std::function<void(const sched::Denial&)>> evicts;
  std::string served, response;
  std::atomic<int> cancels{0}, ends{0}, status{0};

 private:
  sched::Routing Locked(const sched::RequestInput& input) {
    const std::lock_guard lock(mutex_);
    return Next(input);
  }
  sched::Routing Next(const sched::RequestInput& input) {
    Asked& one = asked.emplace_back();
    one.headers = *input.headers;
    one.body = input.body;
    one.has_body = input.has_body;
    one.first_target = input.first_target;
    one.again = input.first_received != TimePoint();
    one.exclude.assign(input.exclude.begin(), input.exclude.end());
    evict = input.evicted;
    evicts.push_back(input.evicted);
    sched::Routing routing = script.front();
    if (script.size() > 1) script.pop_front();
    // Never looked into here.
    const auto owner = std::make_shared<int>(1);
    routing.state = {owner, reinterpret_cast<sched::RequestState*>(owner.get())};
    return routing;
  }
  std::mutex mutex_;
};

inline sched::EndpointId Id(uint64_t n) {
  return static_cast<sched::EndpointId>(n);
}

inline sched::Routing To(const std::vector<uint16_t>& ports) {
  sched::Routing routing;
  routing.ok = true;
  for (const uint16_t port : ports) {
    routing.endpoints.push_back("127.0.0.1:" + std::to_string(port));
    routing.handles.push_back(Id(port));
  }
  return routing;
}

inline sched::Routing Refusal(int status, std::string message, std::string reason,
                              int retry_after_s) {
  sched::Routing routing;
  routing.denial = {status, std::move(message), std::move(reason), retry_after_s, {}};
  return routing;
}

inline std::string ReadRequest(RawSocket& socket) {
  std::string seen;
  while (seen.find("\r\n\r\n") == std::string::npos && socket.Receive(&seen)) {
  }
  const size_t head = seen.find("\r\n\r\n"), at = seen.find("Content-Length: ");
  const size_t length = at < head ? std::stoul(seen.substr(at + 16)) : 0;
  while (head != std::string::npos && seen.size() < head + 4 + length && socket.Receive(&seen)) {
  }
  return seen;
}

// Answers what it received.
class EchoEngine {
 public:
  EchoEngine()
      : peer_(1, [](RawSocket& socket, int) {
          for (std::string seen = ReadRequest(socket); !seen.empty(); seen = ReadRequest(socket)) {
            socket.Send("HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(seen.size()) +
                        "\r\n\r\n" + seen);
          }
        }) {}
  uint16_t port() const { return peer_.port(); }

 private:
  ScriptedPeer peer_;
};

inline uint16_t NobodyThere() {
  ScriptedPeer peer(0, [](RawSocket&, int) {});
  return peer.port();
}

class DirectorCalls : public testing::Test {
 protected:
  static FrontOptions Options(int max_attempts = 3, Duration retry_timeout = {}) {
    FrontOptions options;
    options.tries.max_attempts = max_attempts;
    options.tries.retry_timeout = retry_timeout;
    return options;
  }
  void Open(FrontOptions options = Options(), PageWatch* watch = nullptr) {
    options.access_log = log_;
    front_ = *MakeRelayFront(options, director_, *doors_, {}, Logger(log_, LogLevel::kInfo),
                             metrics_, watch);
  }
  // Engines end after the front, which keeps connections to them.
  EchoEngine& Engine() { return *(echo_ = std::make_unique<EchoEngine>()); }
  ScriptedPeer& Scripted(std::function<void(RawSocket&, int)> script) {
    return *(scripted_ = std::make_unique<ScriptedPeer>(1, std::move(script)));
  }
  // To the end of the connection.
  std::string Post(const std::string& lines = "", const std::string& body = "{\"model\":\"m\"}") {
    if (!front_) Open();
    RawSocket socket = RawSocket::Connect(front_->port());
    socket.Send("POST /v1/completions HTTP/1.1\r\nHost: h\r\nConnection: close\r\n" + lines +
                "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body);
    return socket.ReadToEnd();
  }
  double Metric(const std::string& name) const {
    const std::string page = metrics_.Expose();
    const size_t at = page.find("\n" + name + " ");
    return at == std::string::npos ? -1 : std::stod(page.substr(at + name.size() + 2));
  }

  std::string Log() const {
    std::string text;
    for (const json::Value& line : log_->Lines()) text += line.Dump() + "\n";
    return text;
  }

  std::shared_ptr<MemoryLogSink> log_ = std::make_shared<MemoryLogSink>();
  MetricsRegistry metrics_;
  FakeDirector director_;
  std::unique_ptr<doors::Doors> doors_ = DefaultDoors(metrics_);
  std::unique_ptr<EchoEngine> echo_;
  std::unique_ptr<ScriptedPeer> scripted_;
  std::unique_ptr<Front> front_;
};

}  // namespace llmd::gateway
