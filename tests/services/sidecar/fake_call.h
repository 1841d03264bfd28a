// A relay without sockets: calls record what a policy asks of them, and the test plays the wire.
#pragma once

#include <algorithm>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "llmd/http/relay/policy.h"

namespace llmd::sidecar {

using Lines = std::vector<std::pair<std::string, std::string>>;

// Strings of which views are handed out.
struct OwnedHead {
  explicit OwnedHead(Lines given) : lines(std::move(given)) {
    for (const auto& [name, value] : lines)
      views.push_back({.name = name, .value = value, .known = http::KnownHeader(name)});
  }
  OwnedHead(const OwnedHead&) = delete;
  http::HeaderLines view() const { return {views}; }
  Lines lines;
  std::vector<http::HeaderLine> views;
};

// What a policy sent, with everything copied but the body's pieces.
struct SentLeg {
  relay::Target target;
  std::shared_ptr<const relay::UpstreamTls> tls;
  std::string method, path;
  Lines set;
  std::vector<std::string> removed;
  bool own_headers, own_body;
  std::vector<std::string_view> pieces;
  size_t collect_bytes;
  Duration first_byte_timeout;

  std::string Body() const {
    std::string out;
    for (std::string_view piece : pieces) out += piece;
    return out;
  }
};

class FakeLoop;

class FakeCall final : public relay::Call {
 public:
  FakeCall(FakeLoop& loop, uint32_t slot, std::string method, std::string target, Lines headers,
           std::string body)
      : loop_(loop),
        slot_(slot),
        method_(std::move(method)),
        target_(std::move(target)),
        head_(std::move(headers)),
        body_(std::move(body)) {
    request_.method = method_;
    request_.target = target_;
    request_.headers = head_.view();
  }

  const http::RequestView& request() const override { return request_; }
  std::string_view body() const override { return body_; }
  bool has_body() const override { return !body_.empty(); }
  std::string_view peer() const override { return "127.0.0.1:41234"; }
  bool tls() const override { return false; }
  TimePoint received() const override { return {}; }
  TimePoint now() const override;
  relay::Loop& loop() const override;
  relay::CallRef ref() const override;

  void Send(const relay::SendOptions& options) override;
  void Answer(int status, std::span<const relay::HeaderEdit> headers,
              std::string_view body) override {
    answered = status;
    answer_body = body;
    answer_headers.clear();
    for (const relay::HeaderEdit& line : headers)
      answer_headers.emplace_back(line.name, line.value);
  }
  void Forward(std::span<const relay::HeaderEdit> edits, relay::BodyMode mode) override {
    forwarded = mode;
  }
  void Abort() override { aborted = true; }
  void BreakOff(std::string_view error) override {}
  void Release(std::string_view bytes, size_t covers, bool last) override {}
  void SetTimer(Duration delay) override {
    timer = delay == Duration::zero() ? std::nullopt : std::optional(delay);
  }
  void Retain() override { retained = true; }
  void LetGo() override { retained = false; }

  std::vector<SentLeg> sent;
  std::optional<int> answered;
  std::string answer_body;
  Lines answer_headers;
  std::optional<relay::BodyMode> forwarded;
  std::optional<Duration> timer;
  bool aborted = false, retained = false;

 private:
  FakeLoop& loop_;
  const uint32_t slot_;
  const std::string method_, target_;
  const OwnedHead head_;
  const std::string body_;
  http::RequestView request_;
};

// Posts run when the test says so.
class FakeLoop final : public relay::Loop {
 public:
  int index() const override { return index_; }
  TimePoint now() const override { return now_; }
  bool Post(std::function<void()> fn) override {
    posts_.push_back(std::move(fn));
    return true;
  }
  relay::Call& Open() override { return Make("", "", {}, ""); }

  FakeCall& Make(std::string method, std::string target, Lines headers, std::string body) {
    const auto slot = static_cast<uint32_t>(calls_.size());
    calls_.push_back(std::make_unique<FakeCall>(*this, slot, std::move(method), std::move(target),
                                                std::move(headers), std::move(body)));
    return *calls_.back();
  }
  FakeCall& call(size_t i) { return *calls_[i]; }
  size_t calls() const { return calls_.size(); }
  // The slot is free: posts reach it no more.
  void Over(uint32_t slot) { over_.push_back(slot); }
  void RunPosts() {
    while (!posts_.empty()) {
      const auto fn = std::move(posts_.front());
      posts_.pop_front();
      fn();
    }
  }
  size_t posts() const { return posts_.size(); }
  void Advance(Duration by) { now_ += by; }
  void SetIndex(int index) { index_ = index; }
  relay::CallRef RefOf(uint32_t slot) { return MakeRef(this, slot, 1); }

 private:
  bool PostTo(uint32_t slot, uint32_t generation, std::function<void(relay::Call&)> fn) override {
    return Post([this, slot, fn = std::move(fn)] {
      if (std::find(over_.begin(), over_.end(), slot) == over_.end()) fn(*calls_[slot]);
    });
  }

  int index_ = 1;
  TimePoint now_ = TimePoint(std::chrono::hours(1));
  std::deque<std::function<void()>> posts_;
  std::vector<std::unique_ptr<FakeCall>> calls_;
  std::vector<uint32_t> over_;
};

inline TimePoint FakeCall::now() const {
  return loop_.now();
}
inline relay::Loop& FakeCall::loop() const {
  return loop_;
}
inline relay::CallRef FakeCall::ref() const {
  return loop_.RefOf(slot_);
}
inline void FakeCall::Send(const relay::SendOptions& options) {
  SentLeg leg{.target = options.target,
              .tls = options.tls,
              .method = std::string(options.method),
              .path = std::string(options.path),
              .set = {},
              .removed = {},
              .own_headers = options.own_headers,
              .own_body = options.own_body,
              .pieces = {options.body.begin(), options.body.end()},
              .collect_bytes = options.collect_bytes,
              .first_byte_timeout = options.first_byte_timeout};
  for (const relay::HeaderEdit& edit : options.headers) {
    if (edit.remove) {
      leg.removed.emplace_back(edit.name);
    } else {
      leg.set.emplace_back(edit.name, edit.value);
    }
  }
  sent.push_back(std::move(leg));
}

}  // namespace llmd::sidecar
