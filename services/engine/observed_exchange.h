// An exchange that remembers the status it was answered with and adds headers to the answer;
// everything else passes.
#pragma once

#include <string>
#include <utility>

#include "llmd/http/server.h"

namespace llmd::services {

class ObservedExchange final : public http::Exchange {
 public:
  // `request_id` "" adds no X-Request-Id.
  ObservedExchange(http::Exchange& inner, std::string request_id)
      : inner_(inner), request_id_(std::move(request_id)) {}

  int status() const { return status_; }  // 0 = nothing was answered here

  const http::RequestHead& request() const override { return inner_.request(); }
  const std::string& peer() const override { return inner_.peer(); }
  http::Task<StatusOr<std::string_view>> ReadBody() override { return inner_.ReadBody(); }
  http::Task<StatusOr<std::string>> ReadAll() override { return inner_.ReadAll(); }
  http::Task<Status> Send(http::Response response) override {
    Observe(response.head);
    return inner_.Send(std::move(response));
  }
  http::Task<Status> Start(http::ResponseHead head) override {
    Observe(head);
    return inner_.Start(std::move(head));
  }
  http::Task<Status> Write(std::string_view bytes) override { return inner_.Write(bytes); }
  http::Task<Status> Finish() override { return inner_.Finish(); }
  void Abort() override { inner_.Abort(); }
  bool started() const override { return inner_.started(); }
  void OnClientGone(std::function<void()> callback) override {
    inner_.OnClientGone(std::move(callback));
  }
  bool client_gone() const override { return inner_.client_gone(); }
  boost::asio::io_context& loop() override { return inner_.loop(); }

 private:
  void Observe(http::ResponseHead& head) {
    status_ = head.status;
    if (!request_id_.empty()) head.headers.Set("X-Request-Id", request_id_);
  }

  http::Exchange& inner_;
  const std::string request_id_;
  int status_ = 0;
};

}  // namespace llmd::services
