#include "gateway/doors/model_routes.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <cmath>

#include "gateway/doors/glob.h"
#include "llmd/format.h"

namespace llmd::doors {
namespace {

// Uniform in (0, 1): 53 bits and a half step.
double Uniform(uint64_t bits) {
  return (static_cast<double>(bits >> 11) + 0.5) * 0x1.0p-53;
}

// "Example.com:8080" and "example.com": the same host.
bool SameHost(std::string_view authority, std::string_view host) {
  const size_t colon = authority.rfind(':');
  if (colon != std::string_view::npos && authority.find(']', colon) == std::string_view::npos)
    authority = authority.substr(0, colon);
  return EqualsIgnoreCase(authority, host);
}

// As rules of pools have it: a '*' at the end stands for any ending.
bool Takes(std::string_view rule, std::string_view model) {
  if (!rule.ends_with('*')) return rule == model;
  return model.starts_with(rule.substr(0, rule.size() - 1));
}

std::string_view StickyName(const ModelRoute& route, const RouteClient& client) {
  switch (route.sticky) {
    case StickyBy::kHeader:
      return client.headers.Get(route.sticky_header).value_or("");
    case StickyBy::kKey:
      return client.key_id;
    case StickyBy::kTenant:
      return client.tenant;
    case StickyBy::kNothing:
      break;
  }
  return {};
}

const RouteTarget* TargetOf(const ModelRoute& route, const RouteClient& client, uint64_t random) {
  for (const RouteCanary& canary : route.canaries) {
    const auto value = client.headers.Get(canary.header);
    if (value && (canary.value.empty() || *value == canary.value)) return &canary.target;
  }
  if (route.targets.size() == 1) return &route.targets.front();
  const std::string_view name = StickyName(route, client);
  return name.empty() ? RandomTarget(route.targets, random) : StickyTarget(route.targets, name);
}

}  // namespace

uint64_t SeedOf(const RouteTarget& target) {
  const uint64_t model = XXH3_64bits(target.model.data(), target.model.size());
  return XXH3_64bits_withSeed(target.pool.data(), target.pool.size(), model);
}

const RouteTarget* StickyTarget(const std::vector<RouteTarget>& targets, std::string_view name) {
  const RouteTarget* best = nullptr;
  double highest = 0;
  for (const RouteTarget& target : targets) {
    if (target.weight <= 0) continue;
    const uint64_t hash = XXH3_64bits_withSeed(name.data(), name.size(), target.seed);
    const double score = -static_cast<double>(target.weight) / std::log(Uniform(hash));
    if (best == nullptr || score > highest) {
      best = &target;
      highest = score;
    }
  }
  return best;
}

const RouteTarget* RandomTarget(const std::vector<RouteTarget>& targets, uint64_t random) {
  int64_t total = 0;
  for (const RouteTarget& target : targets) total += target.weight;
  if (total <= 0) return nullptr;
  auto draw = static_cast<int64_t>(random % static_cast<uint64_t>(total));
  for (const RouteTarget& target : targets) {
    if (draw < target.weight) return &target;
    draw -= target.weight;
  }
  return &targets.back();
}

StatusOr<ModelRoutes> ModelRoutes::Create(std::vector<ModelRoute> routes,
                                          sched::PoolsConfig pools) {
  ModelRoutes out;
  std::unordered_map<std::string_view, std::string_view> names;  // model or pattern → route
  std::unordered_map<std::string_view, size_t> seen;
  for (size_t i = 0; i < routes.size(); ++i) {
    const ModelRoute& route = routes[i];
    if (!seen.emplace(route.name, i).second)
      return InvalidArgument("two routes are called '" + route.name + "'");
    for (const std::string& model : route.models) {
      const auto [it, fresh] = names.emplace(model, route.name);
      if (!fresh) {
        return InvalidArgument("routes '" + std::string(it->second) + "' and '" + route.name +
                               "' both take the model '" + model + "'");
      }
      if (IsGlob(model))
        out.patterns_.emplace_back(model, i);
      else
        out.by_name_.emplace(model, i);
    }
  }
  if (routes.size() > kMaxRoutes)
    return InvalidArgument("more than " + std::to_string(kMaxRoutes) + " routes");
  out.by_model_ = std::any_of(pools.pools.begin(), pools.pools.end(),
                              [](const sched::PoolRule& p) { return !p.models.empty(); });
  out.routes_ = std::move(routes);
  out.pools_ = std::move(pools);
  return out;
}

const ModelRoute* ModelRoutes::Find(std::string_view model) const {
  if (const auto it = by_name_.find(model); it != by_name_.end()) return &routes_[it->second];
  for (const auto& [pattern, index] : patterns_) {
    if (GlobMatches(pattern, model)) return &routes_[index];
  }
  return nullptr;
}

void ModelRoutes::SetRewrittenBehind(std::vector<std::string> models) {
  rewritten_.clear();
  for (std::string& model : models) rewritten_.insert(std::move(model));
}

bool ModelRoutes::rewritten_behind(std::string_view model) const {
  return !rewritten_.empty() && (rewritten_.contains(model) || rewritten_.contains("*"));
}

std::string_view ModelRoutes::PoolFor(std::string_view host, std::string_view model) const {
  for (const sched::PoolRule& pool : pools_.pools) {
    for (const std::string& rule : pool.hosts) {
      if (SameHost(host, rule)) return pool.name;
    }
  }
  for (const sched::PoolRule& pool : pools_.pools) {
    for (const std::string& rule : pool.models) {
      if (Takes(rule, model)) return pool.name;
    }
  }
  return pools_.default_pool;
}

void ModelRoutes::CountIn(DoorMetrics& metrics) {
  const auto count = [&](const ModelRoute& route, RouteTarget& target) {
    target.chosen = &metrics.OfRoute(route.name, target.model, target.pool);
  };
  for (ModelRoute& route : routes_) {
    for (RouteCanary& canary : route.canaries) count(route, canary.target);
    for (RouteTarget& target : route.targets) count(route, target);
  }
}

RouteChoice ModelRoutes::Choose(std::string_view model, const RouteClient& client,
                                uint64_t random) const {
  RouteChoice out{nullptr, model, {}, nullptr};
  if (const ModelRoute* route = Find(model)) {
    if (const RouteTarget* target = TargetOf(*route, client, random)) {
      out.route = route;
      if (!target->model.empty()) out.model = target->model;
      out.pool = target->pool;
      out.chosen = target->chosen;
    }
  }
  if (out.pool.empty() && !pools_.pools.empty()) out.pool = PoolFor(client.host, out.model);
  return out;
}

}  // namespace llmd::doors
