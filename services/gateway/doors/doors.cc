#include "gateway/doors/doors.h"

#include <algorithm>
#include <map>
#include <set>

#include "gateway/doors/glob.h"

namespace llmd::doors {
namespace {

json::Value Entry(const ListedModel& model) {
  json::Object out{{"id", model.id},
                   {"object", "model"},
                   {"created", model.created},
                   {"owned_by", model.owned_by.empty() ? "llmd" : model.owned_by}};
  if (!model.parent.empty()) out.emplace_back("parent", model.parent);
  if (model.max_model_len > 0) out.emplace_back("max_model_len", model.max_model_len);
  return out;
}

// What is known, what is only a name of a route, sorted by id, as far as the key may use it.
std::map<std::string_view, ListedModel> ListFor(const Admission& admission,
                                                const CatalogueView& view,
                                                const ModelRoutes& routes) {
  std::map<std::string_view, ListedModel> out;
  const auto may = [&](std::string_view model) {
    return !admission.key || admission.key->record.MayUse(model);
  };
  for (const auto& [id, entry] : view.models) {
    if (may(id)) out.emplace(id, entry.model);
  }
  for (const ModelRoute& route : routes.routes()) {
    for (const std::string& model : route.models) {
      if (IsGlob(model) || !may(model)) continue;
      ListedModel listed;
      listed.id = model;
      out.emplace(model, std::move(listed));
    }
  }
  return out;
}

}  // namespace

Doors::Doors(DoorOptions options, MetricsRegistry& metrics, const Clock& clock)
    : options_(std::move(options)),
      clock_(clock),
      metrics_(metrics),
      keys_(limiter_, metrics_),
      catalogue_(options_.model_interval),
      bounds_(options_.each_client, options_.all_clients, metrics_) {}

Doors::~Doors() {
  gauges_.clear();
  for (const auto& file : files_) file->Stop();
}

StatusOr<std::unique_ptr<Doors>> Doors::Create(DoorOptions options, const Logger& logger,
                                               MetricsRegistry& metrics, const Clock& clock) {
  if (options.all_clients.connections < 1)
    return InvalidArgument("the bound of all connections must be at least 1");
  auto out = std::unique_ptr<Doors>(new Doors(std::move(options), metrics, clock));
  LLMD_RETURN_IF_ERROR(out->Open(logger.Named("doors")));
  out->Show(metrics);
  return out;
}

Status Doors::Open(const Logger& logger) {
  auto trusted = CidrSet::Parse(options_.trusted_cidrs);
  if (!trusted.ok()) return trusted.status().WithContext("--trusted-cidrs");
  auto proxies = CidrSet::Parse(options_.trusted_proxies);
  if (!proxies.ok()) return proxies.status().WithContext("--trusted-proxies");
  trust_ = ClientTrust(std::move(*trusted), std::move(*proxies), options_.address_header);
  LLMD_ASSIGN_OR_RETURN(cors_, Cors::Create(options_.cors));
  LLMD_ASSIGN_OR_RETURN(paths_, PathRules::Create(options_.paths));
  LLMD_RETURN_IF_ERROR(Follow(
      "--api-keys-file", "keys", options_.keys_file,
      [this] { return keys_.Load(options_.keys_file, options_.key_priorities); }, logger));
  LLMD_RETURN_IF_ERROR(Follow(
      "--engine-api-key-file", "engine_key", options_.engine_key_file,
      [this] { return LoadEngineKey(); }, logger));
  const auto routes = [this] { return LoadRoutesNow(); };
  LLMD_RETURN_IF_ERROR(
      Follow("--pools-file", "routes", options_.routes.pools_file, routes, logger));
  for (const auto& [pool, path] : options_.routes.endpoints_files)
    LLMD_RETURN_IF_ERROR(Follow("routes", "routes", path, routes, logger));
  return OkStatus();
}

void Doors::Show(MetricsRegistry& metrics) {
  gauges_.push_back(metrics.AddGaugeCollector(
      "llmd_gateway_clients_hold", "What clients hold now: connections, bytes of heads and bodies",
      [this](const MetricsRegistry::GaugeEmit& emit) {
        for (size_t i = 0; i < kBoundNames.size(); ++i)
          emit({{"bound", std::string(kBoundNames[i])}},
               static_cast<double>(bounds_.Total(static_cast<Bound>(i))));
      }));
  gauges_.push_back(metrics.AddGaugeCollector(
      "llmd_gateway_models", "Models and adapters that engines list",
      [this](const MetricsRegistry::GaugeEmit& emit) {
        emit({}, static_cast<double>(catalogue_.view().Load()->models.size()));
      }));
  gauges_.push_back(metrics.AddGaugeCollector(
      "llmd_gateway_engines_without_models", "Ready engines that have told no list of models yet",
      [this](const MetricsRegistry::GaugeEmit& emit) {
        const auto view = catalogue_.view().Load();
        for (const auto& [pool, state] : view->pools)
          emit({{"pool", pool}}, static_cast<double>(state.silent));
      }));
}

Status Doors::Follow(const char* flag, const char* kind, const std::string& path,
                     std::function<Status()> load, const Logger& logger) {
  if (path.empty()) return OkStatus();
  files_.push_back(std::make_unique<FollowedFile>(kind, path, std::move(load), logger, metrics_));
  return files_.back()->Start().WithContext(flag);
}

Status Doors::LoadRoutesNow() {
  const std::lock_guard lock(routes_mutex_);
  LLMD_ASSIGN_OR_RETURN(ModelRoutes routes, LoadRoutes(options_.routes));
  routes.CountIn(metrics_);
  routes_.Publish(std::make_shared<const ModelRoutes>(std::move(routes)));
  return OkStatus();
}

Status Doors::LoadEngineKey() {
  LLMD_ASSIGN_OR_RETURN(std::string key, ReadEngineKey(options_.engine_key_file));
  engine_key_.Publish(std::make_shared<const std::string>(std::move(key)));
  return OkStatus();
}

Status Doors::Reload() {
  Status status;
  for (const auto& file : files_) {
    if (Status one = file->Reload(); !one.ok()) status = std::move(one);
  }
  return status;
}

void Doors::Settle(Admission& admission, const DoorUsage& usage, TimePoint now) {
  if (admission.settled_ || !admission.key) return;
  admission.settled_ = true;
  const int64_t charged = std::exchange(admission.charged_tokens_, 0);
  const int64_t used = !usage.answered ? 0 : usage.tokens < 0 ? charged : usage.tokens;
  admission.key->budget->tokens.Adjust(used - charged, now);
  if (used > 0) admission.key->counters->tokens->Add(static_cast<double>(used));
}

std::string Doors::ModelsBody(const Admission& admission) const {
  const auto view = catalogue_.view().Load();
  const auto routes = routes_.Load();
  json::Array data;
  for (const auto& [id, model] : ListFor(admission, *view, *routes)) data.push_back(Entry(model));
  return json::Value(json::Object{{"object", "list"}, {"data", std::move(data)}}).Dump();
}

bool Doors::ModelBody(std::string_view path, Admission& admission, std::string& out) const {
  const auto view = catalogue_.view().Load();
  const auto routes = routes_.Load();
  std::string id;
  if (ModelIdOf(path, id)) {
    const auto list = ListFor(admission, *view, *routes);
    if (const auto it = list.find(id); it != list.end()) {
      out = Entry(it->second).Dump();
      return true;
    }
  }
  admission.verdict = Verdict::kRefuse;
  admission.refusal.Set(404, "model_not_found", "there is no model ", "model");
  AppendClientText(admission.refusal.message, id);
  return false;
}

}  // namespace llmd::doors
