#include "llmd/sched/director.h"

#include "director/impl.h"
#include "director/pool_seed.h"
#include "life/callback_scope.h"
#include "llmd/sched/decision_tries.h"
#include "llmd/uuid.h"

namespace llmd::sched {
namespace {

constexpr auto kConfigQuiet = std::chrono::milliseconds(200);  // editors write in several steps

uint64_t SeedOf(const DirectorOptions& options) {
  const uint64_t seed = GivenOrDrawn(options.seed);
  return options.label_pool ? PoolSeed(seed, options.pool_name) : seed;
}

}  // namespace

StatusOr<std::unique_ptr<Director>> Director::Create(DirectorOptions options,
                                                     std::shared_ptr<Fetch> fetch, Logger logger,
                                                     MetricsRegistry& metrics, const Clock& clock) {
  auto director = std::make_unique<DirectorImpl>(std::move(options), std::move(fetch),
                                                 std::move(logger), metrics, clock);
  LLMD_RETURN_IF_ERROR(director->Start());
  return std::unique_ptr<Director>(std::move(director));
}

void Routing::Clear() {
  ok = skip_response = reads_response = edits_response = false;
  denial = {};
  handles.clear();
  prefill = {};
  port = 0;
  endpoints.clear();
  set_headers.clear();
  remove_headers.clear();
  body_edits.clear();
  scores.clear();
  request_id.clear();
  target_model.clear();
  state.reset();
  trace.reset();
}

DirectorImpl::DirectorImpl(DirectorOptions options, std::shared_ptr<Fetch> fetch, Logger logger,
                           MetricsRegistry& metrics, const Clock& clock)
    : options_(std::move(options)),
      fetch_(std::move(fetch)),
      logger_(std::move(logger)),
      registry_(metrics),
      clock_(clock),
      store_(&clock, options_.metrics_staleness),
      metrics_(metrics, options_.pool_name),
      failures_(logger_, clock_),
      ring_(options_.decision_ring, options_.decision_ring_bytes),
      recording_(ring_.enabled() || options_.attach_trace || options_.emit_endpoint_scores ||
                 !options_.explain_token.empty()),
      seed_(SeedOf(options_)) {
  store_.OnGone([this](const EndpointInfo& endpoint, uint32_t slot) {
    ForObservers([&](EndpointObserver& observer) { observer.OnEndpointGone(endpoint, slot); });
  });
  store_.OnSlotFree([this](uint32_t slot) {
    ForObservers([slot](EndpointObserver& observer) { observer.OnSlotFree(slot); });
  });
  metrics_.FollowPool([this] { return store_.Get(); });
}

Status DirectorImpl::Start() {
  {
    std::lock_guard lock(reload_mutex_);
    seen_yaml_ = options_.config_yaml;
    LLMD_RETURN_IF_ERROR(Apply(options_.config_yaml));
    if (discovery_ == nullptr && !options_.manual)
      logger_.Warn("no dataLayer.discovery is configured: the pool stays empty");
  }
  if (options_.manual) return OkStatus();
  maintenance_ = std::thread([this] { Maintain(); });
  if (!options_.watch_config || options_.config_path.empty()) return OkStatus();
  return watch_.Start(options_.config_path, [this] { FileChanged(); }, kConfigQuiet);
}

void DirectorImpl::OnEndpoints(std::vector<EndpointInfo> endpoints,
                               std::shared_ptr<const PoolPolicy> policy) {
  logger_.Log(LogLevel::kDefault, "Endpoints updated",
              {{"count", static_cast<int64_t>(endpoints.size())}});
  {
    if (policy) metrics_.Keep(*policy);
    std::lock_guard lock(policy_mutex_);
    policy_ = std::move(policy);
  }
  store_.Update(std::move(endpoints));
  const std::shared_ptr<const Setup> setup = setup_.Load();
  if (setup && setup->flow) setup->flow->Pump();
}

bool DirectorImpl::InCallback() const {
  return CallbackScope::Within(static_cast<const Director*>(this));
}

// Nothing is called or waited for under reload_mutex_: with stopped_ set nobody else comes to what
// it guards.
void DirectorImpl::Stop() {
  if (InCallback()) {
    logger_.Error(
        "Stop is ignored: it was called from a callback of the director, whose end it "
        "would wait for");
    return;
  }
  const std::lock_guard one_at_a_time(stop_mutex_);
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  watch_.Stop();
  if (maintenance_.joinable()) maintenance_.join();
  door_->Shut();
  TickProducers(TimePoint::max());
  EndWaits(TimePoint::max());
  {
    std::lock_guard lock(reload_mutex_);
    stopped_ = true;
  }
  if (discovery_ != nullptr) discovery_->Stop();
  if (flow_) flow_->Stop();
  if (scraper_) scraper_->Stop();
}

std::shared_ptr<const PoolPolicy> DirectorImpl::Policy() const {
  std::lock_guard lock(policy_mutex_);
  return policy_;
}

std::vector<EndpointInfo> DirectorImpl::Endpoints() const {
  std::vector<EndpointInfo> out;
  const std::shared_ptr<const EndpointSet> members = store_.Members();
  for (const auto& info : members->infos) out.push_back(*info);
  return out;
}

std::vector<EndpointHandle> DirectorImpl::Members() const {
  std::vector<EndpointHandle> out;
  const std::shared_ptr<const EndpointSet> members = store_.Members();
  for (size_t i = 0; i < members->size(); ++i)
    out.push_back({members->names[i], members->lives[i]->id()});
  return out;
}

std::vector<ServedModel> DirectorImpl::ServedModels() const {
  const std::shared_ptr<const Snapshot> snapshot = store_.Get();
  std::map<std::string, std::string> parents;
  for (const auto& metrics : snapshot->metrics) {
    if (!metrics->served_models) continue;
    for (const ServedModel& model : *metrics->served_models)
      parents.try_emplace(model.id, model.parent);
  }
  std::vector<ServedModel> out;
  out.reserve(parents.size());
  for (auto& [id, parent] : parents) out.push_back({id, std::move(parent)});
  return out;
}

StatusOr<std::string> DirectorImpl::Explain(std::string_view request_id) const {
  LLMD_ASSIGN_OR_RETURN(std::vector<DecisionTrace> tries,
                        ring_.Find(BoundedName(request_id, kMaxRequestIdBytes)));
  for (DecisionTrace& trace : tries) {
    if (options_.label_pool) trace.pool = options_.pool_name;
  }
  return TriesToJson(tries).Dump();
}

json::Value DirectorImpl::PluginState() const {
  const std::shared_ptr<const Setup> setup = setup_.Load();
  const std::shared_ptr<const EndpointSet> endpoints = store_.Members();
  json::Object out;
  for (const auto& plugin : setup->graph->plugins) {
    json::Value one = json::Object{{"type", plugin->type()}};
    if (const auto* shown = dynamic_cast<const Introspected*>(plugin.get()))
      one.Set("state", shown->State(*endpoints));
    out.emplace_back(plugin->name(), std::move(one));
  }
  return out;
}

json::Value DirectorImpl::Decisions(size_t limit) const {
  json::Array out;
  for (DecisionTrace& trace : ring_.Latest(limit)) {
    if (options_.label_pool) trace.pool = options_.pool_name;
    out.push_back(Summary(trace));
  }
  return out;
}

}  // namespace llmd::sched
