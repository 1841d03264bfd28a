// HTTP/1.1 server on Asio coroutines: keep-alive, pipelining in order, chunked uploads, limits,
// deadlines, disconnect watch, drain. Refuses what RFC 9112 says is an error (400 and close).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "llmd/http/message.h"
#include "llmd/http/runtime.h"
#include "llmd/http/server_options.h"
#include "llmd/http/task.h"
#include "llmd/http/tls.h"
#include "llmd/log.h"
#include "llmd/metrics.h"
#include "llmd/status.h"

namespace llmd::http {

// One request and its answer, owned by the connection's coroutine. Handlers read the body, then
// answer exactly once: Send, or Start + Write… + Finish. A handler that returns without an answer
// gets 500. Bound to one loop thread.
class Exchange {
 public:
  virtual ~Exchange() = default;
  virtual const RequestHead& request() const = 0;
  virtual const std::string& peer() const = 0;  // "127.0.0.1:41234"

  // The next piece of the body; empty at its end. The view holds until the next call.
  // RESOURCE_EXHAUSTED over the limit, INVALID_ARGUMENT on bad framing, DEADLINE_EXCEEDED,
  // CANCELLED when the client left.
  virtual Task<StatusOr<std::string_view>> ReadBody() = 0;
  // The whole body. The answer to a failure (400, 408, 413) has been sent when this fails.
  virtual Task<StatusOr<std::string>> ReadAll() = 0;

  // A whole answer; Content-Length is set.
  virtual Task<Status> Send(Response response) = 0;
  // Begins a streamed answer: chunked for 1.1, close-delimited for 1.0; with a Content-Length in
  // `head`, exactly that.
  virtual Task<Status> Start(ResponseHead head) = 0;
  // CANCELLED when the client has left. Waits while the client reads slowly.
  virtual Task<Status> Write(std::string_view bytes) = 0;
  virtual Task<Status> Finish() = 0;
  // Ends the connection without completing the streamed answer, so that the client sees it is cut.
  virtual void Abort() = 0;
  virtual bool started() const = 0;

  // Called once, on the loop thread, as soon as the client's end is seen closed, also while nothing
  // is written. Replaces an earlier callback; pass nullptr to clear. Called at once if the client
  // has already left.
  virtual void OnClientGone(std::function<void()> callback) = 0;
  virtual bool client_gone() const = 0;
  virtual boost::asio::io_context& loop() = 0;
};

using Handler = std::function<Task<void>(Exchange&)>;

// Told of a request that is refused before a handler sees it, on its loop's thread; must not block.
// Gives the x-request-id that the answer carries, "" = none.
using RefusalHook =
    std::function<std::string(int status, std::string_view message, const std::string& peer)>;

// Thread-safe.
class Server {
 public:
  // Binds and listens. ALREADY_EXISTS naming host and port when in use.
  static StatusOr<std::unique_ptr<Server>> Create(Runtime& runtime, ServerOptions options,
                                                  Handler handler, Logger logger,
                                                  RefusalHook refused = nullptr);
  ~Server();  // Stop(0)

  uint16_t port() const;
  size_t open_connections() const;
  size_t active_requests() const;
  // Stops accepting, lets running exchanges finish until `drain`, then cuts the rest. Blocks; not
  // from a loop thread.
  void Stop(Duration drain);

 private:
  Server();
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

// Method and path to handler. Exact paths and "/prefix/*". Unknown path or method go to the
// handlers given.
class Router {
 public:
  void Add(std::string_view method, std::string_view path, Handler handler);
  void NotFound(Handler handler);  // default: 404 {"detail":"Not Found"}
  void MethodNotAllowed(
      Handler handler);  // default: 405 {"detail":"Method Not Allowed"} with Allow
  // The handler for a server; the router must outlive it. HEAD is answered by GET's handler without
  // a body.
  Handler AsHandler() const;

 private:
  Task<void> Dispatch(Exchange& exchange) const;
  struct Route {
    std::string method, path;
    Handler handler;
  };
  std::vector<Route> routes_;
  Handler not_found_, method_not_allowed_;
};

// A JSON answer.
Response JsonResponse(int status, std::string body);

}  // namespace llmd::http
