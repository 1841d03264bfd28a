// Endpoints from a YAML or JSON file (docs/reference/data.md). A bad reload keeps the old set; a
// host that cannot be resolved keeps its old addresses.
#include <condition_variable>
#include <mutex>
#include <thread>

#include "data/file_watch.h"
#include "llmd/sched/discovery.h"
#include "plugins/builtin.h"
#include "plugins/common.h"
#include "plugins/data/endpoints_file.h"
#include "plugins/data/host_resolver.h"

namespace llmd::sched {
namespace {

constexpr Duration kRetry = std::chrono::seconds(1);  // while some host is not resolved

struct Settings {
  std::string path;
  bool watch = false, all_addresses = false;
  Duration resolve_interval = std::chrono::seconds(30);  // 0 = only when the file is read
};

class FileDiscovery final : public Discovery {
 public:
  FileDiscovery(Settings settings, PluginEnv& env)
      : s_(std::move(settings)),
        ns_(env.pool_namespace),
        logger_(env.logger),
        reloads_ok_(Reloads(env, "success")),
        reloads_failed_(Reloads(env, "failure")),
        resolver_(LookupHost, s_.all_addresses) {}
  ~FileDiscovery() override { Stop(); }

  void FollowPolicy(std::function<void(std::shared_ptr<const PoolPolicy>)> update) override {
    policy_ = std::move(update);
  }
  Status Start(std::function<void(std::vector<EndpointInfo>)> update) override {
    update_ = std::move(update);
    // Watched before it is read, so that no change falls between the two.
    if (s_.watch) {
      watcher_ = std::make_unique<FileWatch>();
      LLMD_RETURN_IF_ERROR(watcher_->Start(s_.path, [this] { Reload(); }));
    }
    if (Status status = Read(); !status.ok()) {
      if (watcher_) watcher_->Stop();
      return status;
    }
    if (s_.resolve_interval > Duration::zero())
      resolving_ = std::thread([this] { ResolveAgain(); });
    return OkStatus();
  }
  void Stop() override {
    if (watcher_) watcher_->Stop();
    {
      std::lock_guard lock(stop_mutex_);
      stopping_ = true;
    }
    stop_.notify_all();
    if (resolving_.joinable()) resolving_.join();
  }

 private:
  static Counter* Reloads(const PluginEnv& env, const char* result) {
    if (env.metrics == nullptr) return nullptr;
    return &env.metrics->AddCounter("llm_d_epp_endpoints_file_reloads_total",
                                    "Reads of the endpoints file after the first",
                                    {{"result", result}});
  }
  Status Read() {
    LLMD_ASSIGN_OR_RETURN(PoolFile file, ReadPoolFile(s_.path, ns_));
    for (const std::string& warning : file.warnings) logger_.Warn(warning, {{"path", s_.path}});
    std::lock_guard lock(mutex_);
    if (policy_) policy_(std::make_shared<const PoolPolicy>(std::move(file.policy)));
    configured_ = std::move(file.endpoints);
    Publish(true);
    return OkStatus();
  }
  void Reload() {
    const Status status = Read();
    if (Counter* counter = status.ok() ? reloads_ok_ : reloads_failed_) counter->Add();
    if (!status.ok()) {
      logger_.Error("Endpoints file not reloaded, keeping the previous endpoints",
                    {{"path", s_.path}, {"error", status.ToString()}});
    }
  }
  // Resolves what the file says and hands it on; with `always` unchanged too. Under mutex_.
  void Publish(bool always) {
    std::vector<std::string> problems;
    std::vector<EndpointInfo> endpoints = resolver_.Resolve(configured_, &problems);
    if (problems != problems_) {
      for (const std::string& problem : problems)
        logger_.Warn("Endpoint not resolved", {{"path", s_.path}, {"error", problem}});
    }
    problems_ = std::move(problems);
    if (!always && endpoints == published_) return;
    published_ = endpoints;
    update_(std::move(endpoints));
  }
  Duration NextResolve() {
    std::lock_guard lock(mutex_);
    return problems_.empty() ? s_.resolve_interval : std::min(kRetry, s_.resolve_interval);
  }
  void ResolveAgain() {
    std::unique_lock stop(stop_mutex_);
    while (!stop_.wait_for(stop, NextResolve(), [this] { return stopping_; })) {
      stop.unlock();
      {
        std::lock_guard lock(mutex_);
        Publish(false);
      }
      stop.lock();
    }
  }

  const Settings s_;
  const std::string ns_;
  const Logger logger_;
  Counter *const reloads_ok_, *const reloads_failed_;  // null without metrics
  std::function<void(std::shared_ptr<const PoolPolicy>)> policy_;
  std::function<void(std::vector<EndpointInfo>)> update_;
  std::mutex mutex_;                                  // updates come from two threads
  HostResolver resolver_;                             // guarded by mutex_
  std::vector<EndpointInfo> configured_, published_;  // guarded by mutex_
  std::vector<std::string> problems_;                 // told already; guarded by mutex_
  std::unique_ptr<FileWatch> watcher_;
  std::mutex stop_mutex_;
  std::condition_variable stop_;
  bool stopping_ = false;  // guarded by stop_mutex_
  std::thread resolving_;
};

StatusOr<std::unique_ptr<Plugin>> Make(PluginArgs& args) {
  Params params(args.parameters);
  Settings s;
  s.path = params.String("path", "");
  s.watch = params.Bool("watchFile", false);
  s.resolve_interval = params.Time("resolveInterval", s.resolve_interval);
  s.all_addresses = params.Choice("hostAddresses", "first", {"first", "all"}) == "all";
  if (s.path.empty()) params.Fail("path", "expected the path of an endpoints file");
  return Done(params, std::make_unique<FileDiscovery>(std::move(s), args.env));
}

}  // namespace

Status RegisterFileDiscovery(PluginRegistry& registry) {
  return AddPlugin(
      registry,
      {.type = "file-discovery",
       .kind = "discovery",
       .help = "Endpoints, objectives and model rewrites from a file; no Kubernetes.",
       .params = {{"path", "", "YAML or JSON file, at most 1 MiB"},
                  {"watchFile", "false", "follow changes of the file"},
                  {"resolveInterval", "30s",
                   "how often host names are looked up again; 0s = only when the file is read"},
                  {"hostAddresses", "first",
                   "what a host name with several addresses stands for: one endpoint, or with "
                   "`all` one at each address, called name-address"}},
       .make = Make});
}

}  // namespace llmd::sched
