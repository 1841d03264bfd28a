// What a request is sent for, by the model it names: aliases, weighted and sticky splits, canaries
// by header, and the pool that answers. Schema of the sections `routes`:
// docs/reference/gateway-doors.md.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "gateway/doors/door_metrics.h"
#include "gateway/doors/header_span.h"
#include "gateway/doors/model_catalogue.h"
#include "llmd/config.h"
#include "llmd/sched/pools.h"
#include "llmd/status.h"

namespace llmd::doors {

inline constexpr size_t kMaxRoutes = 1000;
inline constexpr size_t kMaxNamesOfRoute = 1000;
inline constexpr size_t kMaxTargets = 64;  // and canaries of a route
inline constexpr int64_t kMaxTargetWeight = 1'000'000;

struct RouteTarget {
  std::string model;  // "" = the one that was asked for
  std::string pool;   // "" = by the rules of the pools
  int64_t weight = 1;
  uint64_t seed = 0;  // of model and pool: what a sticky choice depends on besides the weight
  Counter* chosen = nullptr;  // requests sent there; may be null
};
struct RouteCanary {
  std::string header;  // a request that has it
  std::string value;   // … with this value; "" = with any
  RouteTarget target;
};
enum class StickyBy { kNothing, kHeader, kKey, kTenant };

struct ModelRoute {
  std::string name;
  std::vector<std::string> models;  // names, or patterns (glob.h)
  std::vector<RouteCanary> canaries;
  std::vector<RouteTarget> targets;
  StickyBy sticky = StickyBy::kNothing;
  std::string sticky_header;
};

// Who asks, for sticky choices.
struct RouteClient {
  HeaderSpan headers;
  std::string_view key_id, tenant;  // "" without a key
  std::string_view host;            // the request's Host
};
struct RouteChoice {
  const ModelRoute* route = nullptr;  // null: the model is sent as it is
  std::string_view model, pool;       // to send; pool "" = the scheduler's choice
  Counter* chosen = nullptr;          // of the target; may be null
};

// The target with the highest score -weight/ln(hash(name, target)): each name stays where it is
// unless the weights say that it is one of those to move (weighted rendezvous hashing). Null when
// no target has a weight.
const RouteTarget* StickyTarget(const std::vector<RouteTarget>& targets, std::string_view name);
// By weight, for 64 random bits.
const RouteTarget* RandomTarget(const std::vector<RouteTarget>& targets, uint64_t random);
uint64_t SeedOf(const RouteTarget& target);

// Immutable.
class ModelRoutes {
 public:
  ModelRoutes() = default;
  // `pools` are the rules of --pools-file, empty with one pool. INVALID_ARGUMENT when two routes
  // have one name or take one model.
  static StatusOr<ModelRoutes> Create(std::vector<ModelRoute> routes, sched::PoolsConfig pools);
  // The route that lists the model by name, else the first with a pattern for it; then the canaries
  // in order, then the split. The pool is the target's, else that of the rules. `random` is used
  // where nothing is sticky.
  RouteChoice Choose(std::string_view model, const RouteClient& client, uint64_t random) const;
  const std::vector<ModelRoute>& routes() const { return routes_; }
  // Gives every target its counter, before the routes are shared.
  void CountIn(DoorMetrics& metrics);
  // Names that the scheduler's own `rewrites` take: no engine need list them. "*" =
  // every name.
  void SetRewrittenBehind(std::vector<std::string> models);
  bool rewritten_behind(std::string_view model) const;
  // Whether the name of a model decides about anything here.
  bool name_matters() const { return !routes_.empty() || by_model_; }

 private:
  const ModelRoute* Find(std::string_view model) const;
  std::string_view PoolFor(std::string_view host, std::string_view model) const;

  std::vector<ModelRoute> routes_;
  std::unordered_map<std::string, size_t, StringHash, std::equal_to<>> by_name_;
  std::vector<std::pair<std::string, size_t>> patterns_;
  std::unordered_set<std::string, StringHash, std::equal_to<>> rewritten_;
  sched::PoolsConfig pools_;
  bool by_model_ = false;
};

// Reads the section `routes` of a file (absent: none). `pools` are the names that targets may use;
// `own_pool`, when given, is the pool of targets that name none. INVALID_ARGUMENT has every error,
// one a line.
StatusOr<std::vector<ModelRoute>> ReadRoutes(const config::Node& root,
                                             const std::vector<std::string>& pools,
                                             std::string_view own_pool);
// Where routes are read from.
struct RouteFiles {
  std::string pools_file;  // "" = one pool
  // pool (as --pools-file calls it, "" = the only one) and its endpoints file
  std::vector<std::pair<std::string, std::string>> endpoints_files;
};
StatusOr<ModelRoutes> LoadRoutes(const RouteFiles& files);
// The endpoints files that an EndpointPickerConfig names (plugins of type file-discovery).
std::vector<std::string> EndpointsFilesOf(std::string_view config_yaml);

}  // namespace llmd::doors
