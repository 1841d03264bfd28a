// Who a client is and what it may say: its address behind proxies, and whether its headers may
// steer requests.
#pragma once

#include <string_view>

#include "gateway/doors/header_span.h"
#include "gateway/doors/ip_address.h"

namespace llmd::doors {

enum class AddressHeader {
  kXForwardedFor,
  kForwarded,  // RFC 7239
};

// Headers of a client's that steer a request. All others are no business of ours.
enum class SteeringHeader {
  kNone,
  kDestination,  // where it goes: endpoints, stages, subset
  kPriority,     // how it is treated: fairness id, objective, TTL, SLOs, pool, the model to ask for
};
// Without regard to case. What only carries a hint about the request's content (video sizes) or has
// a token of its own (x-llm-d-explain) is kNone.
SteeringHeader SteeringHeaderOf(std::string_view name);

// Thread-safe; immutable once made.
class ClientTrust {
 public:
  // At most so many addresses of a forwarding header are looked at, the last ones.
  static constexpr size_t kMaxHops = 32;

  ClientTrust() = default;
  ClientTrust(CidrSet trusted, CidrSet proxies, AddressHeader header)
      : trusted_(std::move(trusted)), proxies_(std::move(proxies)), header_(header) {}

  // The peer, or, where that is a trusted proxy, the last address of the forwarding header that is
  // none. What cannot be read ends the search: the client is the hop that wrote it.
  IpAddress ClientOf(const IpAddress& peer, HeaderSpan headers) const;
  bool TrustsAddress(const IpAddress& client) const { return trusted_.Contains(client); }
  bool names_addresses() const { return !trusted_.empty(); }
  // Whether what the peer says of its client (X-Forwarded-For, -Proto, -Host) is to be believed.
  bool IsProxy(const IpAddress& peer) const { return proxies_.Contains(peer); }

 private:
  CidrSet trusted_, proxies_;
  AddressHeader header_ = AddressHeader::kXForwardedFor;
};

}  // namespace llmd::doors
