#include "gateway/client_limits.h"

#include <algorithm>
#include <string>

namespace llmd::gateway {
namespace {

constexpr Duration kLeastTimeout = std::chrono::milliseconds(10),
                   kMostTimeout = std::chrono::hours(24);
// For log, admin port, files that are followed and pages of engines; and never less than this many
// clients.
constexpr uint64_t kOwnDescriptors = 64, kLeastConnections = 8;

}  // namespace

void AddClientLimitFlags(services::FlagSet& set, ClientLimits& limits) {
  set.Int("max-header-bytes", &limits.max_header_bytes, 1024, 1 << 20,
          "of a request's head; above: 431");
  set.Int("max-headers", &limits.max_headers, 10, 10'000, "lines of a request's head; above: 431");
  set.Duration("client-head-timeout", &limits.head_timeout,
               "how long a client may take to send a request's head; then 408");
  set.Duration("client-body-timeout", &limits.body_timeout,
               "how long a client may pause within a request's body; then 408");
  set.Duration("client-body-grace", &limits.body_grace,
               "from when on a body must have come at --min-body-bytes-per-second");
  set.Int("min-body-bytes-per-second", &limits.min_body_bytes_per_s, 0, 1 << 30,
          "a body that comes slower on the average is refused with 408; 0 = no such rule");
  set.Duration("client-idle-timeout", &limits.idle_timeout,
               "how long a connection stays open without a request");
  set.Duration("client-write-timeout", &limits.write_timeout,
               "how long a client may take nothing of its answer");
  set.Int("max-held-bytes", &limits.max_held_bytes, 1 << 16, 1 << 30,
          "of one answer that a picker or a plugin holds back; above, its engine is not read on");
}

Status CheckClientLimits(const ClientLimits& limits) {
  const auto check = [](const char* flag, Duration value) {
    if (value >= kLeastTimeout && value <= kMostTimeout) return OkStatus();
    return InvalidArgument(std::string(flag) + ": expected 10ms to 24h");
  };
  LLMD_RETURN_IF_ERROR(check("--client-head-timeout", limits.head_timeout));
  LLMD_RETURN_IF_ERROR(check("--client-body-timeout", limits.body_timeout));
  LLMD_RETURN_IF_ERROR(check("--client-body-grace", limits.body_grace));
  LLMD_RETURN_IF_ERROR(check("--client-idle-timeout", limits.idle_timeout));
  return check("--client-write-timeout", limits.write_timeout);
}

void ApplyLimits(const ClientLimits& limits, relay::RelayOptions& options) {
  options.server.max_head_bytes = static_cast<size_t>(limits.max_header_bytes);
  options.server.max_headers = static_cast<size_t>(limits.max_headers);
  options.server.head_timeout = limits.head_timeout;
  options.server.body_timeout = limits.body_timeout;
  options.server.idle_timeout = limits.idle_timeout;
  options.server.write_timeout = limits.write_timeout;
  options.server.max_connections = static_cast<size_t>(limits.max_connections);
  options.min_body_bytes_per_s = static_cast<size_t>(limits.min_body_bytes_per_s);
  options.body_grace = limits.body_grace;
  options.max_body_bytes_in_flight = static_cast<size_t>(limits.max_body_bytes_in_flight);
  options.max_held_bytes = static_cast<size_t>(limits.max_held_bytes);
}

int64_t ConnectionsWithin(int64_t wanted, uint64_t descriptors) {
  const uint64_t left = descriptors > kOwnDescriptors ? descriptors - kOwnDescriptors : 0;
  const uint64_t room = std::max(left / 2, kLeastConnections);
  return static_cast<int64_t>(std::min(static_cast<uint64_t>(wanted), room));
}

}  // namespace llmd::gateway
