// What the gateway allows a client's connection, and the flags for it. What clients may hold all
// together, and each of them, is the doors' (doors/door_flags.h).
#pragma once

#include <cstdint>

#include "common/flags.h"
#include "llmd/clock.h"
#include "llmd/http/relay/relay.h"
#include "llmd/status.h"

namespace llmd::gateway {

struct ClientLimits {
  int64_t max_header_bytes = 64 * 1024, max_headers = 200;
  Duration head_timeout = std::chrono::seconds(10);
  Duration body_timeout = std::chrono::seconds(60), body_grace = std::chrono::seconds(30);
  int64_t min_body_bytes_per_s = 1024;
  Duration idle_timeout = std::chrono::seconds(300), write_timeout = std::chrono::seconds(300);
  int64_t max_held_bytes = 1 << 20;
  // Of all clients together: as the doors have them, and fewer where descriptors are few.
  int64_t max_connections = 20'000, max_body_bytes_in_flight = int64_t{2} << 30;
};

void AddClientLimitFlags(services::FlagSet& set, ClientLimits& limits);
// INVALID_ARGUMENT names the flag.
Status CheckClientLimits(const ClientLimits& limits);
void ApplyLimits(const ClientLimits& limits, relay::RelayOptions& options);

// So many connections of clients as `descriptors` allow when each may need another one to an
// engine, at most `wanted`.
int64_t ConnectionsWithin(int64_t wanted, uint64_t descriptors);

}  // namespace llmd::gateway
