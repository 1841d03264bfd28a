// An exchange that remembers what its line in the access log and its counts tell, and adds headers
// to the answer; everything else passes.
#pragma once

#include <string>
#include <utility>

#include "llmd/http/server.h"

namespace llmd::services {

// Of one exchange. -1 = not known.
struct Observed {
  int status = 0;  // 0 = nothing was answered
  size_t request_bytes = 0, answer_bytes = 0;
  Duration ttft{};  // to the first byte of the answer's body; zero = there was none
  std::string model;
  int prompt_tokens = -1, completion_tokens = -1;
};

class ObservedExchange final : public http::Exchange {
 public:
  // `request_id` "" adds no X-Request-Id.
  ObservedExchange(http::Exchange& inner, std::string request_id, const Clock& clock)
      : inner_(inner), request_id_(std::move(request_id)), clock_(clock), began_(clock.Now()) {}

  Duration elapsed() const { return clock_.Now() - began_; }

  // The handler adds what it knows.
  Observed observed;

  const http::RequestHead& request() const override { return inner_.request(); }
  const std::string& peer() const override { return inner_.peer(); }
  http::Task<StatusOr<std::string_view>> ReadBody() override { return inner_.ReadBody(); }
  http::Task<StatusOr<std::string>> ReadAll() override { return ReadAndCount(*this); }
  http::Task<Status> Send(http::Response response) override {
    Observe(response.head);
    Count(response.body.size());
    return inner_.Send(std::move(response));
  }
  http::Task<Status> Start(http::ResponseHead head) override {
    Observe(head);
    return inner_.Start(std::move(head));
  }
  http::Task<Status> Write(std::string_view bytes) override {
    Count(bytes.size());
    return inner_.Write(bytes);
  }
  http::Task<Status> Finish() override { return inner_.Finish(); }
  void Abort() override { inner_.Abort(); }
  bool started() const override { return inner_.started(); }
  void OnClientGone(std::function<void()> callback) override {
    inner_.OnClientGone(std::move(callback));
  }
  bool client_gone() const override { return inner_.client_gone(); }
  boost::asio::io_context& loop() override { return inner_.loop(); }

 private:
  // The answer to a failure has been sent by the HTTP layer.
  static http::Task<StatusOr<std::string>> ReadAndCount(ObservedExchange& self) {
    StatusOr<std::string> body = co_await self.inner_.ReadAll();
    if (body.ok()) {
      self.observed.request_bytes = body->size();
    } else {
      self.observed.status = StatusOf(body.status().code());
    }
    co_return body;
  }
  static int StatusOf(StatusCode code) {
    switch (code) {
      case StatusCode::kResourceExhausted:
        return 413;
      case StatusCode::kInvalidArgument:
        return 400;
      case StatusCode::kDeadlineExceeded:
        return 408;
      default:
        return 0;
    }
  }
  void Observe(http::ResponseHead& head) {
    observed.status = head.status;
    if (!request_id_.empty()) head.headers.Set("X-Request-Id", request_id_);
  }
  void Count(size_t bytes) {
    if (bytes > 0 && observed.answer_bytes == 0) observed.ttft = elapsed();
    observed.answer_bytes += bytes;
  }

  http::Exchange& inner_;
  const std::string request_id_;
  const Clock& clock_;
  const TimePoint began_;
};

}  // namespace llmd::services
