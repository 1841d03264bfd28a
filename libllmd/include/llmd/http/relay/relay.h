// An HTTP/1.1 reverse proxy as a library: N loops on epoll, each with its own connections, upstream
// pools, buffers and policy. A request never changes its loop, and no lock is taken on its way.
// Requests that RFC 9112 says are in error are refused (400 and close); an upstream's framing and
// bytes pass as they are. One limit and one set of rules with http::Server.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "llmd/http/relay/policy.h"
#include "llmd/http/server_options.h"
#include "llmd/log.h"
#include "llmd/status.h"

namespace llmd::relay {

struct RelayOptions {
  // Address, head and body limits, head/body/idle/write timeouts, max_connections (of all loops
  // together) and TLS, as of http::Server.
  http::ServerOptions server;
  int loops = 1;  // 1 … 64
  // For legs that name no TLS of their own; empty = those are in clear text. Asked by each loop
  // every 250 ms or so. The certificate must be made out to `upstream_tls_host`, "" = to the
  // target's IP address.
  http::TlsProvider upstream_tls;
  std::string upstream_tls_host;
  // A body that comes slower than this on the average, after the grace, is refused with 408.
  size_t min_body_bytes_per_s = 1024;
  Duration body_grace = std::chrono::seconds(30);
  // Request bodies in memory, of all clients together; above: 503. 0 = no bound.
  size_t max_body_bytes_in_flight = size_t{2} << 30;
  // A client that closed its sending side is taken for gone, and its request is broken off. With
  // this it is served to the end, and only a reset counts.
  bool allow_half_close = false;
  size_t max_idle_per_upstream = 512;  // connections kept a loop and target
  Duration upstream_idle_timeout = std::chrono::seconds(60);
  size_t max_held_bytes = 1 << 20;  // see Call::Release
  // An event stream that brought nothing for so long is kept alive by a comment line, between two
  // events only; zero = never.
  Duration sse_heartbeat{};
  size_t max_posts = 1 << 16;  // functions waiting for one loop: Loop::Post, not CallRef::Post
};

// Of one loop.
struct LoopStats {
  uint64_t accepted = 0, calls = 0;                 // so far
  size_t connections = 0, active_calls = 0;         // now
  size_t upstream_open = 0, upstream_idle = 0;      // now
  uint64_t upstream_connects = 0;                   // so far
  uint64_t replays = 0;                             // on a fresh connection, of swallowed requests
  uint64_t turns = 0;                               // of the loop
  uint64_t handshakes = 0, handshake_failures = 0;  // of TLS with clients, so far
};

using PolicyFactory = std::function<std::unique_ptr<Policy>(Loop& loop)>;

// Thread-safe.
class Relay {
 public:
  // Binds, listens, makes a policy for each loop (on the calling thread) and starts the threads.
  // ALREADY_EXISTS naming host and port when in use.
  static StatusOr<std::unique_ptr<Relay>> Create(RelayOptions options,
                                                 const PolicyFactory& policies, Logger logger);
  ~Relay();  // Stop(0)

  uint16_t port() const;
  size_t open_connections() const;
  size_t active_calls() const;
  std::vector<LoopStats> Stats() const;
  // Stops accepting, answers with Connection: close, lets calls finish until `drain`, then cuts the
  // rest and joins the threads. Blocks; not from a loop thread. Whoever may still Post must have
  // stopped before the relay is destroyed.
  void Stop(Duration drain);

 private:
  Relay();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace llmd::relay
