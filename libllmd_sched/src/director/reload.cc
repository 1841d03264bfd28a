// From one configuration to the next while requests pass.
#include <fstream>
#include <iterator>
#include <set>

#include "director/impl.h"
#include "llmd/sched/config_loader.h"

namespace llmd::sched {
namespace {

constexpr size_t kMaxConfigBytes = 1 << 20;

const PluginOrigin& OriginOf(const Graph& graph, const Plugin& plugin) {
  const auto at = std::find_if(graph.plugins.begin(), graph.plugins.end(),
                               [&](const auto& p) { return p.get() == &plugin; });
  return graph.origins[static_cast<size_t>(at - graph.plugins.begin())];
}

// Two plugins that do the same, though they are two objects.
bool Alike(const Graph& a, const Plugin& x, const Graph& b, const Plugin& y) {
  return x.name() == y.name() && x.type() == y.type() &&
         OriginOf(a, x).parameters.SameAs(OriginOf(b, y).parameters);
}

bool SameSources(const Graph& a, const Graph& b) {
  return std::equal(a.sources.begin(), a.sources.end(), b.sources.begin(), b.sources.end(),
                    [&](const SourceBinding& x, const SourceBinding& y) {
                      return Alike(a, *x.source, b, *y.source) && x.attributes == y.attributes &&
                             std::equal(x.extractors.begin(), x.extractors.end(),
                                        y.extractors.begin(), y.extractors.end(),
                                        [&](const Extractor* e, const Extractor* f) {
                                          return Alike(a, *e, b, *f);
                                        });
                    });
}

size_t SharedPlugins(const Graph& a, const Graph& b) {
  std::set<const Plugin*> of_a;
  for (const auto& plugin : a.plugins) of_a.insert(plugin.get());
  size_t shared = 0;
  for (const auto& plugin : b.plugins) shared += of_a.count(plugin.get());
  return shared;
}

StatusOr<std::string> ReadConfigFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return NotFound("cannot read '" + path + "'");
  std::string text(kMaxConfigBytes + 1, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (in.gcount() > static_cast<std::streamsize>(kMaxConfigBytes))
    return InvalidArgument("'" + path + "' is larger than 1 MiB");
  text.resize(static_cast<size_t>(in.gcount()));
  return text;
}

}  // namespace

LoadOptions DirectorImpl::Loading() const {
  LoadOptions load;
  load.registry = options_.registry.get();
  load.clock = &clock_;
  load.metrics = &registry_;
  load.logger = logger_;
  load.fetch = fetch_;
  load.allow_experimental = options_.allow_experimental;
  load.pool_namespace = options_.pool_namespace;
  load.refresh_interval = options_.refresh_metrics_interval;
  load.metrics_staleness = options_.metrics_staleness;
  load.source_name = options_.config_path;
  return load;
}

Status DirectorImpl::Apply(std::string_view yaml) {
  const std::shared_ptr<const Setup> before = setup_.Load();
  LoadOptions load = Loading();
  if (before) load.previous = before->graph;
  LLMD_ASSIGN_OR_RETURN(const std::shared_ptr<const Graph> graph, LoadGraph(yaml, load));
  for (const std::string& warning : graph->warnings) logger_.Warn(warning);
  LLMD_RETURN_IF_ERROR(Discover(*graph));
  discovered_ = graph;
  if (before) HandOver(*before->graph, *graph);
  {
    std::lock_guard lock(graphs_mutex_);  // only now is it told of endpoints that leave
    std::erase_if(graphs_, [](const auto& g) { return g.expired(); });
    graphs_.push_back(graph);
  }
  Publish(graph);
  Scrape(graph);
  if (before) {
    const size_t kept = SharedPlugins(*before->graph, *graph);
    logger_.Info("Configuration reloaded",
                 {{"path", options_.config_path},
                  {"pluginsKept", static_cast<int64_t>(kept)},
                  {"pluginsNew", static_cast<int64_t>(graph->plugins.size() - kept)}});
  }
  return OkStatus();
}

// The new discovery must work before the old one is let go.
Status DirectorImpl::Discover(const Graph& graph) {
  if (options_.manual || graph.discovery == discovery_) return OkStatus();
  auto feed = std::make_shared<DiscoveryFeed>(
      [this](std::vector<EndpointInfo> endpoints, DiscoveryFeed::Policy policy) {
        OnEndpoints(std::move(endpoints), std::move(policy));
      });
  if (graph.discovery == nullptr) {
    feed->OnEndpoints({});
  } else {
    Status started;
    Guarded(
        *graph.discovery,
        [&] {
          graph.discovery->FollowPolicy(
              [feed](DiscoveryFeed::Policy p) { feed->OnPolicy(std::move(p)); });
          started = graph.discovery->Start(
              [feed](std::vector<EndpointInfo> e) { feed->OnEndpoints(std::move(e)); });
        },
        [&](Status thrown) { started = std::move(thrown); });
    LLMD_RETURN_IF_ERROR(started);
  }
  if (feed_) feed_->Close();
  if (discovery_ != nullptr) discovery_->Stop();
  discovery_ = graph.discovery;
  feed_ = std::move(feed);
  feed_->Open();
  return OkStatus();
}

void DirectorImpl::Publish(const std::shared_ptr<const Graph>& graph) {
  const OnPluginFailed failed = [this](const Plugin& plugin, const Status& status) {
    failures_.Note(plugin, status);
  };
  Setup next{.graph = graph, .meter = std::make_shared<PoolMeter>(*graph->saturation, failed)};
  const bool first = graph->flow.enabled && !flow_;
  if (first) {
    flow_ = std::make_shared<FlowController>(
        graph, clock_, registry_, options_.pool_name,
        FlowHooks{.load = [this] { return setup_.Load()->meter->Read(*store_.Get()); },
                  .empty = [this] { return store_.Members()->size() == 0; },
                  .failed = failed},
        options_.refresh_metrics_interval);
  }
  if (graph->flow.enabled) next.flow = flow_;
  setup_.Publish(std::make_shared<const Setup>(std::move(next)));
  if (flow_ && !first) flow_->Reconfigure(graph);
}

void DirectorImpl::Scrape(const std::shared_ptr<const Graph>& graph) {
  // By hand metrics come whatever the sources: they age all the same.
  if (options_.manual)
    return store_.SetLimit(graph->ReadsGauges() ? options_.metrics_staleness : kNeverStale);
  const bool wanted = fetch_ && !graph->sources.empty();
  if (scraped_ && wanted && SameSources(*scraped_, *graph)) return;
  if (scraper_) scraper_->Stop();
  scraper_.reset();
  scraped_ = wanted ? graph : nullptr;
  // Without scraping, or with nobody reading gauges, there is nothing to grow stale.
  store_.SetLimit(wanted && graph->ReadsGauges() ? options_.metrics_staleness : kNeverStale);
  if (!wanted) return;
  scraper_ = std::make_unique<Scraper>(graph, fetch_, store_, clock_, logger_, registry_,
                                       ScraperOptions{.interval = options_.refresh_metrics_interval,
                                                      .staleness = options_.metrics_staleness});
  scraper_->Start();
}

std::vector<std::shared_ptr<const Graph>> DirectorImpl::LiveGraphs() {
  std::vector<std::shared_ptr<const Graph>> graphs;
  std::lock_guard lock(graphs_mutex_);
  for (const auto& weak : graphs_) {
    if (auto graph = weak.lock()) graphs.push_back(std::move(graph));
  }
  return graphs;
}

void DirectorImpl::ForObservers(const std::function<void(EndpointObserver&)>& tell) {
  const std::vector<std::shared_ptr<const Graph>> graphs = LiveGraphs();
  std::set<EndpointObserver*> told;
  for (const auto& graph : graphs) {
    for (EndpointObserver* observer : graph->observers) {
      if (!told.insert(observer).second) continue;
      failures_.Run(*observer, "", [&] { tell(*observer); });
    }
  }
}

// Discovery and scraping would start again, and nobody would stop them.
Status DirectorImpl::MayReload() {
  if (!stopped_) return OkStatus();
  return FailedPrecondition("the director was stopped: its configuration cannot be reloaded");
}

Status DirectorImpl::Locked(const std::function<Status()>& reload) {
  if (InCallback())
    return FailedPrecondition("a callback of the director cannot reload its configuration");
  Status status;
  std::shared_ptr<FlowController> flow;
  {
    std::lock_guard lock(reload_mutex_);
    LLMD_RETURN_IF_ERROR(MayReload());
    const FlowController::Pause pause(flow_.get());
    status = reload();
    flow = flow_;
  }
  if (flow) flow->Pump();
  return status;
}

Status DirectorImpl::Reload(std::string_view yaml) {
  return Locked([&] {
    seen_yaml_ = yaml;
    return Finished(Apply(yaml));
  });
}

Status DirectorImpl::ReloadFile() {
  if (options_.config_path.empty()) {
    logger_.Warn("Configuration not reloaded: it was not given as a file");
    return FailedPrecondition("the configuration was not given as a file");
  }
  return Locked([&] {
    StatusOr<std::string> yaml = ReadConfigFile(options_.config_path);
    if (!yaml.ok()) return Finished(yaml.status());
    seen_yaml_ = *yaml;
    return Finished(Apply(*yaml));
  });
}

// Of the many events of a directory only a new text matters, and a bad one is told once.
void DirectorImpl::FileChanged() {
  (void)Locked([&] {
    StatusOr<std::string> yaml = ReadConfigFile(options_.config_path);
    // Between two renames there may be no file.
    if (!yaml.ok() || *yaml == seen_yaml_) return OkStatus();
    seen_yaml_ = *yaml;
    return Finished(Apply(*yaml));
  });
}

Status DirectorImpl::Finished(Status status) {
  metrics_.Reload(status.ok());
  if (!status.ok()) {
    logger_.Error("Configuration not reloaded, keeping the previous one",
                  {{"path", options_.config_path}, {"error", status.message()}});
  }
  return status;
}

}  // namespace llmd::sched
