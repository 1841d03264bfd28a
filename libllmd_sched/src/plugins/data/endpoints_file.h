// The endpoints file, YAML or JSON, at most 1 MiB: endpoints[]{name, namespace, address, port,
// labels}, objectives[]{name, priority}, rewrites[]{name, rules[]{matches[]{model{type, value}},
// targets[]{weight, modelRewrite}}}.
#pragma once

#include <string>
#include <vector>

#include "llmd/config.h"
#include "llmd/sched/endpoint.h"
#include "llmd/sched/policy.h"
#include "llmd/status.h"

namespace llmd::sched {

class Params;

struct PoolFile {
  std::vector<EndpointInfo> endpoints;
  PoolPolicy policy;
};

// Addresses are IPv4 or IPv6 literals or host names, which are not resolved here. INVALID_ARGUMENT
// holds every error, one a line.
StatusOr<PoolFile> ReadPoolFile(const std::string& path, const std::string& default_namespace);
StatusOr<PoolFile> ParsePoolFile(std::string_view text, const std::string& default_namespace);

// Replaces host names by their first address (the system's resolver: blocks, up to its timeout).
Status ResolveHosts(std::vector<EndpointInfo>& endpoints);

// The objectives and rewrites sections; errors go to `top` (pool_policy.cc).
PoolPolicy ReadPolicy(Params& top);

}  // namespace llmd::sched
