// Where a server listens and what it allows its clients: one set for http::Server and relay::Relay.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>

#include "llmd/clock.h"
#include "llmd/http/tls.h"

namespace llmd::http {

struct ServerOptions {
  std::string host = "127.0.0.1";
  uint16_t port = 0;                  // 0 = any free one; see Server::port()
  size_t max_head_bytes = 64 * 1024;  // above: 431
  size_t max_headers = 200;           // above: 431
  size_t max_body_bytes = 100 << 20;  // above: 413, a declared length at once
  Duration head_timeout = std::chrono::seconds(10);
  Duration body_timeout = std::chrono::seconds(60);    // between two reads of a body
  Duration idle_timeout = std::chrono::seconds(300);   // between requests
  Duration write_timeout = std::chrono::seconds(300);  // for one write to make progress
  size_t max_connections = 20'000;                     // above: 503 and close
  TlsProvider tls;                                     // empty = clear text
};

}  // namespace llmd::http
