// Opens a client connection: resolves a name where needed and tries its addresses in turn.
#pragma once

#include <functional>
#include <memory>

#include "http/connection.h"
#include "llmd/http/client.h"

namespace llmd::http {

struct CancelState {
  bool cancelled = false;
  std::function<void()> hook;  // stops what is under way
};

// `timeout` covers resolving and all attempts, and again the handshake where `tls` is not null.
// `cancel` may be null; its hook is used meanwhile.
// UNAVAILABLE, DEADLINE_EXCEEDED, CANCELLED.
Task<StatusOr<std::shared_ptr<Connection>>> Connect(HostPort peer, Duration timeout,
                                                    size_t max_buffer_bytes,
                                                    std::shared_ptr<const TlsContext> tls,
                                                    std::shared_ptr<CancelState> cancel);

}  // namespace llmd::http
