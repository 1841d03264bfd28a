// Several pools in one process. Each has its own configuration, endpoints, queues and metrics (a
// Director of its own); a request is answered by one of them.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "llmd/log.h"
#include "llmd/metrics.h"
#include "llmd/sched/director.h"
#include "llmd/status.h"

namespace llmd::sched {

struct PoolRule {
  std::string name;
  std::string config_path;          // an EndpointPickerConfig
  std::vector<std::string> hosts;   // of the request's :authority, without port
  std::vector<std::string> models;  // of the request; a trailing * stands for any ending
};
struct PoolsConfig {
  std::vector<PoolRule> pools;
  std::string default_pool;  // for what no rule takes; "" = refused with 404
};

// Reads kind EndpointPickerPools (docs/config.md). INVALID_ARGUMENT has every error, one a line.
// Relative config files are taken from `directory`.
StatusOr<PoolsConfig> ParsePools(std::string_view yaml, const std::string& directory);

// A Director over others. A request goes to the pool that RequestInput::pool or the header
// x-llm-d-pool names; else by its :authority, else by its model, else to the default. The body is
// looked at only when some rule has models and nothing before decided. Tick and SetMetrics are told
// to all pools; SetEndpoints is each pool's own (Find) and UNIMPLEMENTED here. Thread-safe.
class PoolSet : public Director {
 public:
  struct Member {
    PoolRule rule;
    std::unique_ptr<Director> director;
  };
  // `metrics` outlives the set and counts what no pool took. `seed` = of the ids of such requests;
  // 0 = random.
  static std::unique_ptr<PoolSet> Create(std::vector<Member> members, std::string default_pool,
                                         MetricsRegistry& metrics, uint64_t seed = 0,
                                         Logger logger = Logger());
  // The pool of that name, or null; lives as the set.
  virtual const Director* Find(std::string_view name) const = 0;
  virtual Director* Find(std::string_view name) = 0;
};

}  // namespace llmd::sched
