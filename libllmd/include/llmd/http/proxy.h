// Relays an upstream's answer to a client as it comes: hop-by-hop headers stay on their side, bytes
// pass unmodified, a client that leaves cancels the upstream call, a slow client holds the upstream
// back.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "llmd/http/client.h"
#include "llmd/http/server.h"

namespace llmd::http {

struct RelayHooks {
  // May edit the head before it goes to the client.
  std::function<void(ResponseHead&)> on_head;
  // Sees each piece; returns what to send instead, or the piece itself. Null = bytes pass.
  std::function<std::string_view(std::string_view)> on_chunk;
  // After the last piece; what it returns is sent before the end.
  std::function<std::string()> on_end;
};

struct RelayResult {
  Status status;       // CANCELLED: client gone; UNAVAILABLE: upstream cut its answer
  uint64_t bytes = 0;  // sent to the client
  bool client_gone = false;
};

// The request head to send upstream: hop-by-hop lines removed, X-Forwarded-For appended, Host kept.
RequestHead ForwardHead(const Exchange& exchange);
// Reads `upstream` to its end into `exchange`. On an upstream cut the exchange is left open for the
// caller to end (an error event, or Abort).
Task<RelayResult> Relay(Exchange& exchange, ResponseStream& upstream, const RelayHooks& hooks);

}  // namespace llmd::http
