// The doors' part of the command line.
#pragma once

#include <string>
#include <vector>

#include "common/flags.h"
#include "gateway/doors/doors.h"
#include "llmd/status.h"

namespace llmd::doors {

struct DoorFlags {
  std::string api_keys_file, engine_api_key_file, client_address_header = "x-forwarded-for";
  std::vector<std::string> trusted_cidrs, trusted_proxies, cors_origins, cors_headers;
  std::vector<std::string> allow_paths = DefaultAllowedPaths(), deny_paths;
  Duration cors_max_age = std::chrono::minutes(10);
  bool refuse_unknown_models = true;
  Duration model_refresh_interval = std::chrono::seconds(10);
  int64_t connections_each = 16'384, header_bytes_each = 8 << 20, body_bytes_each = 1 << 30;
  int64_t connections = 65'536, header_bytes = 64 << 20, body_bytes = int64_t{2} << 30;
};

void AddDoorFlags(services::FlagSet& set, DoorFlags& flags);
// INVALID_ARGUMENT names the flag. `routes` says where the gateway's pools and endpoints are read
// from.
StatusOr<DoorOptions> ToDoorOptions(const DoorFlags& flags, RouteFiles routes, uint64_t seed);

}  // namespace llmd::doors
