// The endpoints file, YAML or JSON, at most 1 MiB: endpoints[]{name, namespace, address, port or
// ports, labels}, objectives[]{name, priority}, rewrites[]{name, rules[]{matches[]{model{type,
// value}}, targets[]{weight, modelRewrite}}}.
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
  std::vector<std::string> warnings;  // what is allowed and probably not meant
};

// Addresses are IPv4 or IPv6 literals or host names, which are not resolved here (host_resolver.h).
// An entry with `ports` stands for its data parallel ranks, "<name>-rank-<i>" at the i-th port; the
// label llm-d.ai/active-ports leaves out the others (docs/reference/data.md). INVALID_ARGUMENT
// holds every error, one a line.
StatusOr<PoolFile> ReadPoolFile(const std::string& path, const std::string& default_namespace);
StatusOr<PoolFile> ParsePoolFile(std::string_view text, const std::string& default_namespace);

// The objectives and rewrites sections; errors go to `top` (pool_policy.cc).
PoolPolicy ReadPolicy(Params& top);

}  // namespace llmd::sched
