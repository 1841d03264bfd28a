#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>

#include "gateway/doors/glob.h"
#include "gateway/doors/key_file.h"
#include "gateway/doors/model_routes.h"
#include "llmd/nearest.h"

namespace llmd::doors {
namespace {

constexpr size_t kMaxFileBytes = 1 << 20;

StatusOr<std::string> ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return NotFound("'" + path + "' cannot be opened");
  std::string text(kMaxFileBytes + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(file.gcount()));
  if (text.size() > kMaxFileBytes) return InvalidArgument("'" + path + "' is above 1 MiB");
  return text;
}

bool IsHeaderName(std::string_view name) {
  return !name.empty() && name.size() <= 64 && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' ||
           c == '_';
  });
}

class RouteReader {
 public:
  RouteReader(const std::vector<std::string>& pools, std::string_view own_pool)
      : pools_(pools), own_pool_(own_pool) {}

  ModelRoute Read(const config::Node& node) {
    ModelRoute route;
    route.name = Text(node.Get("name"), kMaxKeyName);
    if (Status status = CheckKeyName("the value", route.name); !status.ok())
      Fail(node.Get("name").Error(status.message()));
    Models(node.Get("models"), &route.models);
    for (const config::Node& item : List(node.Get("canary"), 0))
      route.canaries.push_back(Canary(item));
    for (const config::Node& item : List(node.Get("targets"), 1))
      route.targets.push_back(Target(item, true));
    Weights(node.Get("targets"), route.targets);
    Sticky(node.Get("stickyBy"), &route);
    if (Status status = node.RejectUnknown(); !status.ok()) Fail(status);
    return route;
  }
  void Fail(const Status& status) {
    if (!errors_.empty()) errors_ += '\n';
    errors_ += status.message();
  }
  Status status() const { return errors_.empty() ? OkStatus() : InvalidArgument(errors_); }

 private:
  std::string Text(const config::Node& node, size_t most) {
    const auto text = node.String();
    if (text.ok() && !text->empty() && text->size() <= most) return *text;
    Fail(node.Error("expected a text of 1 to " + std::to_string(most) + " bytes"));
    return "";
  }
  std::vector<config::Node> List(const config::Node& node, size_t least) {
    const std::vector<config::Node> items = node.Items();
    if ((!node.IsNull() && !node.IsList()) || items.size() < least || items.size() > kMaxTargets) {
      Fail(node.Error("expected a list of " + std::to_string(least) + " to " +
                      std::to_string(kMaxTargets)));
      return {};
    }
    return items;
  }
  void Models(const config::Node& node, std::vector<std::string>* out) {
    const std::vector<config::Node> items = node.Items();
    if (!node.IsList() || items.empty() || items.size() > kMaxNamesOfRoute)
      return Fail(node.Error("expected a list of 1 to " + std::to_string(kMaxNamesOfRoute) +
                             " names or patterns"));
    for (const config::Node& item : items) out->push_back(Text(item, kMaxModelName));
  }
  RouteTarget Target(const config::Node& node, bool weighted) {
    RouteTarget target;
    if (const config::Node model = node.Get("model"); !model.IsNull())
      target.model = Text(model, kMaxModelName);
    if (const config::Node pool = node.Get("pool"); !pool.IsNull()) {
      target.pool = Text(pool, kMaxKeyName);
      if (std::find(pools_.begin(), pools_.end(), target.pool) == pools_.end())
        Fail(pool.Error("no pool is called '" + target.pool + "'" +
                        DidYouMean(target.pool, pools_)));
    } else {
      target.pool = own_pool_;
    }
    if (node.Get("model").IsNull() && node.Get("pool").IsNull())
      Fail(node.Error("a target has a model, a pool or both"));
    if (weighted && node.Has("weight")) {
      const auto weight = node.Get("weight").Int();
      if (!weight.ok() || *weight < 0 || *weight > kMaxTargetWeight)
        Fail(node.Get("weight").Error("expected an integer from 0 to " +
                                      std::to_string(kMaxTargetWeight)));
      target.weight = weight.value_or(1);
    }
    target.seed = SeedOf(target);
    return target;
  }
  RouteCanary Canary(const config::Node& node) {
    RouteCanary canary;
    canary.header = Header(node.Get("header"));
    if (const config::Node value = node.Get("value"); !value.IsNull())
      canary.value = Text(value, kMaxModelName);
    canary.target = Target(node.Get("target"), false);
    return canary;
  }
  std::string Header(const config::Node& node) {
    const std::string name = node.String().value_or("");
    if (!IsHeaderName(name)) Fail(node.Error("expected the name of a header"));
    return name;
  }
  void Weights(const config::Node& node, const std::vector<RouteTarget>& targets) {
    if (targets.empty()) return;
    std::set<std::pair<std::string, std::string>> seen;
    int64_t total = 0;
    for (const RouteTarget& target : targets) {
      total += target.weight;
      if (!seen.emplace(target.model, target.pool).second)
        Fail(node.Error("model '" + target.model + "' appears twice"));
    }
    if (total == 0) Fail(node.Error("no target has a weight above 0"));
  }
  // `key`, `tenant`, or a map {header: NAME}.
  void Sticky(const config::Node& node, ModelRoute* route) {
    if (node.IsNull()) return;
    if (node.IsMap()) {
      route->sticky = StickyBy::kHeader;
      route->sticky_header = Header(node.Get("header"));
      return;
    }
    const std::string word = node.String().value_or("");
    if (word == "key")
      route->sticky = StickyBy::kKey;
    else if (word == "tenant")
      route->sticky = StickyBy::kTenant;
    else
      Fail(node.Error("expected key, tenant or {header: NAME}"));
  }

  const std::vector<std::string>& pools_;
  const std::string own_pool_;
  std::string errors_;
};

// Models that the section `rewrites` of the same file takes, which would replace the route's. They
// are added to `taken`, "*" for a rewrite of every model.
Status CheckRewrites(const config::Node& root, const std::vector<ModelRoute>& routes,
                     std::vector<std::string>& taken) {
  for (const config::Node& rewrite : root.Get("rewrites").Items()) {
    for (const config::Node& rule : rewrite.Get("rules").Items()) {
      if (!routes.empty() && rule.Get("matches").Items().empty())
        return rule.Error("a rewrite of every model and `routes` exclude each other");
      if (rule.Get("matches").Items().empty()) taken.emplace_back("*");
      for (const config::Node& match : rule.Get("matches").Items()) {
        const std::string model = match.Get("model").Get("value").String().value_or("");
        taken.push_back(model);
        for (const ModelRoute& route : routes) {
          for (const std::string& pattern : route.models) {
            if (GlobMatches(pattern, model))
              return rule.Error("route '" + route.name + "' takes the model '" + model +
                                "' already");
          }
        }
      }
    }
  }
  return OkStatus();
}

Status AddRoutes(const std::string& path, const std::vector<std::string>& pools,
                 std::string_view own_pool, std::vector<ModelRoute>& out,
                 std::vector<std::string>& rewritten) {
  LLMD_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  auto root = config::Parse(text, {.max_bytes = kMaxFileBytes});
  if (!root.ok()) return root.status().WithContext(path);
  auto routes = ReadRoutes(*root, pools, own_pool);
  if (!routes.ok()) return routes.status().WithContext(path);
  LLMD_RETURN_IF_ERROR(CheckRewrites(*root, *routes, rewritten).WithContext(path));
  std::move(routes->begin(), routes->end(), std::back_inserter(out));
  return OkStatus();
}

}  // namespace

StatusOr<std::vector<ModelRoute>> ReadRoutes(const config::Node& root,
                                             const std::vector<std::string>& pools,
                                             std::string_view own_pool) {
  std::vector<ModelRoute> out;
  const config::Node list = root.Get("routes");
  if (list.IsNull()) return out;
  if (!list.IsList()) return list.Error("expected a list of routes");
  if (list.Items().size() > kMaxRoutes)
    return list.Error("more than " + std::to_string(kMaxRoutes) + " routes");
  RouteReader reader(pools, own_pool);
  for (const config::Node& item : list.Items()) {
    if (item.IsMap())
      out.push_back(reader.Read(item));
    else
      reader.Fail(item.Error("expected a map"));
  }
  LLMD_RETURN_IF_ERROR(reader.status());
  return out;
}

StatusOr<ModelRoutes> LoadRoutes(const RouteFiles& files) {
  std::vector<ModelRoute> routes;
  sched::PoolsConfig pools;
  std::vector<std::string> names, rewritten;
  if (!files.pools_file.empty()) {
    LLMD_ASSIGN_OR_RETURN(const std::string text, ReadFile(files.pools_file));
    auto parsed =
        sched::ParsePools(text, std::filesystem::path(files.pools_file).parent_path().string());
    if (!parsed.ok()) return parsed.status().WithContext(files.pools_file);
    pools = std::move(*parsed);
    for (const sched::PoolRule& pool : pools.pools) names.push_back(pool.name);
    LLMD_RETURN_IF_ERROR(AddRoutes(files.pools_file, names, "", routes, rewritten));
  }
  for (const auto& [pool, path] : files.endpoints_files)
    LLMD_RETURN_IF_ERROR(AddRoutes(path, names, pool, routes, rewritten));
  LLMD_ASSIGN_OR_RETURN(ModelRoutes out, ModelRoutes::Create(std::move(routes), std::move(pools)));
  out.SetRewrittenBehind(std::move(rewritten));
  return out;
}

std::vector<std::string> EndpointsFilesOf(std::string_view config_yaml) {
  std::vector<std::string> out;
  const auto root = config::Parse(config_yaml);
  if (!root.ok()) return out;  // the scheduler tells
  for (const config::Node& plugin : root->Get("plugins").Items()) {
    if (plugin.Get("type").String().value_or("") != "file-discovery") continue;
    std::string path = plugin.Get("parameters").Get("path").String().value_or("");
    if (!path.empty()) out.push_back(std::move(path));
  }
  return out;
}

}  // namespace llmd::doors
