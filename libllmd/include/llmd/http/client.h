// Pooled HTTP/1.1 client. One call = one exchange; a connection goes back to the pool when its
// answer was read to the end. A request that failed on a *reused* connection before any reply byte
// is sent again once on a fresh one.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "llmd/http/message.h"
#include "llmd/http/runtime.h"
#include "llmd/http/task.h"
#include "llmd/http/tls.h"
#include "llmd/status.h"

namespace llmd::http {

struct ClientOptions {
  size_t max_idle_per_host = 1024;
  Duration idle_timeout = std::chrono::seconds(90);
  Duration connect_timeout = std::chrono::seconds(5);
  size_t max_head_bytes = 64 * 1024;
  std::shared_ptr<const TlsContext> tls;  // a client's; null = clear text
};

struct CallOptions {
  Duration first_byte_timeout = std::chrono::seconds(300);  // request sent → response head
  Duration read_timeout = std::chrono::seconds(300);        // between two body reads; 0 = none
};

// An answer being read. Destroying it before the end closes the connection, which the peer sees as
// a disconnect.
class ResponseStream {
 public:
  virtual ~ResponseStream() = default;
  virtual const ResponseHead& head() const = 0;
  // The next piece as it came off the wire; empty at the end. UNAVAILABLE when the peer cut it
  // short.
  virtual Task<StatusOr<std::string_view>> Read() = 0;
  virtual Task<StatusOr<std::string>> ReadAll(size_t max_bytes) = 0;
  // Closes the connection under a pending Read, which returns CANCELLED. From the loop thread.
  virtual void Cancel() = 0;
};

// A handle by which another part of the same loop thread can cancel a call that is under way,
// its stream included. For one call at a time.
class Cancellation {
 public:
  Cancellation();
  ~Cancellation();
  void Cancel();  // idempotent
  bool cancelled() const;

 private:
  friend class Client;
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

// One per loop is best, but calls may come from any loop of the runtime: pools are per loop.
// Thread-safe. Outlives its calls; their streams may outlive it, not the runtime.
class Client {
 public:
  Client(Runtime& runtime, ClientOptions options);
  ~Client();

  // Sends head and body, waits for the response head. Host and Content-Length are set when absent.
  // UNAVAILABLE: refused, reset, cut before the head ("connect …", "reset before the response …");
  // RESOURCE_EXHAUSTED: we have no descriptor, port or memory for a connection ("connect …"), which
  // is not the peer's fault; DEADLINE_EXCEEDED; CANCELLED. `cancel` may be null. To be called on a
  // loop thread of the runtime.
  Task<StatusOr<std::unique_ptr<ResponseStream>>> Call(HostPort peer, RequestHead head,
                                                       std::string_view body, CallOptions options,
                                                       Cancellation* cancel = nullptr);
  // The whole exchange; the answer's body is bounded by `max_bytes`.
  Task<StatusOr<Response>> Fetch(HostPort peer, RequestHead head, std::string body,
                                 CallOptions options, size_t max_bytes = 64 << 20);
  // Fetch from a thread that is no loop thread.
  StatusOr<Response> FetchBlocking(HostPort peer, RequestHead head, std::string body,
                                   CallOptions options);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace llmd::http
