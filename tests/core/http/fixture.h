// A server with a runtime of its own, for tests.
#pragma once

#include <gtest/gtest.h>

#include <future>
#include <memory>
#include <string>

#include "llmd/http/server.h"
#include "raw_socket.h"

namespace llmd::http::testing {

struct TestServer {
  explicit TestServer(Handler handler, ServerOptions options = {}, int threads = 1)
      : runtime(*Runtime::Create(threads)),
        server(*Server::Create(*runtime, std::move(options), std::move(handler), Logger())) {}
  RawSocket Connect(int receive_buffer_bytes = 0) const {
    return RawSocket::Connect(server->port(), receive_buffer_bytes);
  }
  HostPort address() const { return {"127.0.0.1", server->port()}; }

  std::unique_ptr<Runtime> runtime;
  std::unique_ptr<Server> server;
};

// Answers "<method> <target> <body>".
inline Task<void> Echo(Exchange& exchange) {
  const StatusOr<std::string> body = co_await exchange.ReadAll();
  if (!body.ok()) co_return;
  Response answer;
  answer.body = exchange.request().method + " " + exchange.request().target + " " + *body;
  (void)co_await exchange.Send(std::move(answer));
}

inline Response Text(std::string body) {
  Response answer;
  answer.body = std::move(body);
  return answer;
}

// A value that another thread waits for, at most 10 s.
template <typename T>
class Latch {
 public:
  void Set(T value) { promise_.set_value(std::move(value)); }
  bool Ready(std::chrono::milliseconds limit = std::chrono::seconds(10)) {
    return future_.wait_for(limit) == std::future_status::ready;
  }
  T Get() { return future_.get(); }

 private:
  std::promise<T> promise_;
  std::future<T> future_ = promise_.get_future();
};

// Runs a coroutine function to its end on a loop of `runtime`.
template <typename Function, typename... Args>
void RunOn(Runtime& runtime, Function function, Args&&... args) {
  runtime.BlockOn(function(std::forward<Args>(args)...));
}

}  // namespace llmd::http::testing
