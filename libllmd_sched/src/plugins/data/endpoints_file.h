// The endpoints file: endpoints[]{name, namespace, address, port, labels}, YAML or JSON, at most 1
// MiB.
#pragma once

#include <string>
#include <vector>

#include "llmd/sched/endpoint.h"
#include "llmd/status.h"

namespace llmd::sched {

// Addresses are IPv4 or IPv6 literals. INVALID_ARGUMENT holds every error, one a line.
StatusOr<std::vector<EndpointInfo>> ReadEndpointsFile(const std::string& path,
                                                      const std::string& default_namespace);
StatusOr<std::vector<EndpointInfo>> ParseEndpoints(std::string_view text,
                                                   const std::string& default_namespace);

}  // namespace llmd::sched
