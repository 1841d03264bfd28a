#include "llmd/sched/director.h"

#include "director/impl.h"
#include "llmd/sched/config_loader.h"
#include "llmd/uuid.h"

namespace llmd::sched {
namespace {

constexpr auto kPoolMetricsEvery = std::chrono::seconds(1);
constexpr auto kFlowTick =
    std::chrono::milliseconds(10);  // a gate opened by fresh metrics is seen within this

}  // namespace

StatusOr<std::unique_ptr<Director>> Director::Create(DirectorOptions options,
                                                     std::shared_ptr<Fetch> fetch, Logger logger,
                                                     MetricsRegistry& metrics, const Clock& clock) {
  LoadOptions load;
  load.registry = options.registry.get();
  load.clock = &clock;
  load.metrics = &metrics;
  load.logger = logger;
  load.allow_experimental = options.allow_experimental;
  load.pool_namespace = options.pool_namespace;
  load.refresh_interval = options.refresh_metrics_interval;
  load.metrics_staleness = options.metrics_staleness;
  load.source_name = options.config_path;
  LLMD_ASSIGN_OR_RETURN(std::shared_ptr<Graph> graph, LoadGraph(options.config_yaml, load));
  for (const std::string& warning : graph->warnings) logger.Warn(warning);
  auto director = std::make_unique<DirectorImpl>(
      std::move(options), std::move(graph), std::move(fetch), std::move(logger), metrics, clock);
  LLMD_RETURN_IF_ERROR(director->Start());
  return std::unique_ptr<Director>(std::move(director));
}

DirectorImpl::DirectorImpl(DirectorOptions options, std::shared_ptr<const Graph> graph,
                           std::shared_ptr<Fetch> fetch, Logger logger, MetricsRegistry& metrics,
                           const Clock& clock)
    : options_(std::move(options)),
      graph_(std::move(graph)),
      fetch_(std::move(fetch)),
      logger_(std::move(logger)),
      clock_(clock),
      scraping_(fetch_ && !graph_->sources.empty()),
      store_(scraping_ ? &clock : nullptr,
             graph_->ReadsGauges() ? options_.metrics_staleness : kNeverStale),
      metrics_(metrics, options_.pool_name),
      ring_(options_.decision_ring),
      seed_(options_.seed ? options_.seed : RandomBits()),
      meter_(*graph_->saturation) {
  store_.OnGone([this](const EndpointInfo& endpoint, uint32_t slot) {
    for (EndpointObserver* observer : graph_->observers) observer->OnEndpointGone(endpoint, slot);
  });
  if (graph_->flow.enabled) {
    flow_ = std::make_unique<FlowController>(
        graph_, clock_, metrics, options_.pool_name,
        FlowHooks{.load = [this] { return meter_.Read(*store_.Get()); },
                  .empty = [this] { return store_.Members()->size() == 0; }},
        options_.refresh_metrics_interval);
  }
  if (scraping_) {
    scraper_ =
        std::make_unique<Scraper>(graph_, fetch_, store_, clock_, logger_, metrics,
                                  ScraperOptions{.interval = options_.refresh_metrics_interval,
                                                 .staleness = options_.metrics_staleness});
  }
}

Status DirectorImpl::Start() {
  if (graph_->discovery == nullptr) {
    logger_.Warn("no dataLayer.discovery is configured: the pool stays empty");
  } else {
    graph_->discovery->FollowPolicy([this](std::shared_ptr<const PoolPolicy> policy) {
      std::lock_guard lock(policy_mutex_);
      policy_ = std::move(policy);
    });
    LLMD_RETURN_IF_ERROR(graph_->discovery->Start([this](std::vector<EndpointInfo> endpoints) {
      logger_.Log(LogLevel::kDefault, "Endpoints updated",
                  {{"count", static_cast<int64_t>(endpoints.size())}});
      store_.Update(std::move(endpoints));
      if (flow_) flow_->Pump();
    }));
  }
  if (scraper_) scraper_->Start();
  maintenance_ = std::thread([this] { Maintain(); });
  return OkStatus();
}

void DirectorImpl::Maintain() {
  std::unique_lock lock(mutex_);
  TimePoint pool_metrics_due{};
  while (!stopping_) {
    lock.unlock();
    const TimePoint now = clock_.Now();
    if (now >= pool_metrics_due) {
      metrics_.Pool(*store_.Get());
      if (flow_) flow_->ShowLoad();
      pool_metrics_due = now + kPoolMetricsEvery;
    }
    if (flow_) {
      flow_->Expire();
      flow_->Pump();
    }
    lock.lock();
    const Duration wait =
        flow_ && flow_->size() > 0 ? Duration(kFlowTick) : Duration(kPoolMetricsEvery);
    wake_.wait_for(lock, wait, [this] { return stopping_; });
  }
}

void DirectorImpl::Stop() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  if (maintenance_.joinable()) maintenance_.join();
  if (graph_->discovery) graph_->discovery->Stop();
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

std::vector<ServedModel> DirectorImpl::ServedModels() const {
  const std::shared_ptr<const Snapshot> snapshot = store_.Get();
  std::map<std::string, std::string> parents;
  for (const auto& metrics : snapshot->metrics) {
    if (!metrics->served_models) continue;
    for (const ServedModel& model : *metrics->served_models)
      parents.try_emplace(model.id, model.parent);
  }
  std::vector<ServedModel> out;
  for (auto& [id, parent] : parents) out.push_back({id, std::move(parent)});
  return out;
}

StatusOr<std::string> DirectorImpl::Explain(std::string_view request_id) const {
  LLMD_ASSIGN_OR_RETURN(const DecisionTrace trace, ring_.Find(request_id));
  return ToJson(trace).Dump();
}

}  // namespace llmd::sched
