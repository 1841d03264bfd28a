// Where a request is sent: a socket address, and how to speak there. Small values without
// allocation, so that one can be kept with every endpoint and compared for every request.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "llmd/http/message.h"
#include "llmd/http/tls.h"
#include "llmd/status.h"

namespace llmd::relay {

class Target {
 public:
  Target() = default;
  // "ip:port", an IPv6 address in brackets. INVALID_ARGUMENT for names: see Resolve.
  static StatusOr<Target> Parse(std::string_view text);
  // The first address that the system's resolver gives. Blocks: not for a loop thread. UNAVAILABLE
  // when there is none.
  static StatusOr<Target> Resolve(const http::HostPort& peer);

  bool valid() const { return port_ != 0; }
  bool v6() const { return v6_; }
  const std::array<uint8_t, 16>& address() const { return address_; }  // IPv4: the first four bytes
  uint16_t port() const { return port_; }                              // in the machine's order
  std::string ToString() const;
  std::string AddressText() const;  // without the port
  size_t Hash() const;
  friend bool operator==(const Target&, const Target&) = default;

 private:
  std::array<uint8_t, 16> address_{};
  uint16_t port_ = 0;
  bool v6_ = false;
};

// How to speak TLS to an upstream. Connections are shared by requests that name the same object,
// and those that are idle are closed soon after nobody holds it any more: who replaces it lets what
// runs go on and gets fresh connections for what comes.
struct UpstreamTls {
  std::shared_ptr<const http::TlsContext> context;  // a client's
  std::string host;  // to whom the certificate must be made out; "" = the target's IP address
};

}  // namespace llmd::relay
