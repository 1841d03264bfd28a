// Endpoints from a YAML or JSON file (endpoint-picker.md §5.4). A bad reload keeps the old set.
#include "data/file_watch.h"
#include "llmd/sched/discovery.h"
#include "plugins/builtin.h"
#include "plugins/common.h"
#include "plugins/data/endpoints_file.h"

namespace llmd::sched {
namespace {

class FileDiscovery final : public Discovery {
 public:
  FileDiscovery(std::string path, bool watch, PluginEnv& env)
      : path_(std::move(path)), watch_(watch), ns_(env.pool_namespace), logger_(env.logger) {}
  ~FileDiscovery() override { Stop(); }

  void FollowPolicy(std::function<void(std::shared_ptr<const PoolPolicy>)> update) override {
    policy_ = std::move(update);
  }
  Status Start(std::function<void(std::vector<EndpointInfo>)> update) override {
    LLMD_RETURN_IF_ERROR(Read(update));
    if (!watch_) return OkStatus();
    watcher_ = std::make_unique<FileWatch>();
    return watcher_->Start(path_, [this, update] { Reload(update); });
  }
  void Stop() override {
    if (watcher_) watcher_->Stop();
  }

 private:
  Status Read(const std::function<void(std::vector<EndpointInfo>)>& update) {
    LLMD_ASSIGN_OR_RETURN(PoolFile file, ReadPoolFile(path_, ns_));
    if (Status status = ResolveHosts(file.endpoints); !status.ok())
      return status.WithContext(path_);
    if (policy_) policy_(std::make_shared<const PoolPolicy>(std::move(file.policy)));
    update(std::move(file.endpoints));
    return OkStatus();
  }
  void Reload(const std::function<void(std::vector<EndpointInfo>)>& update) {
    if (Status status = Read(update); !status.ok()) {
      logger_.Error("Endpoints file not reloaded, keeping the previous endpoints",
                    {{"path", path_}, {"error", status.ToString()}});
    }
  }
  std::function<void(std::shared_ptr<const PoolPolicy>)> policy_;
  const std::string path_;
  const bool watch_;
  const std::string ns_;
  const Logger logger_;
  std::unique_ptr<FileWatch> watcher_;
};

}  // namespace

Status RegisterFileDiscovery(PluginRegistry& registry) {
  return AddPlugin(
      registry, {.type = "file-discovery",
                 .kind = "discovery",
                 .help = "Endpoints, objectives and model rewrites from a file; no Kubernetes.",
                 .params = {{"path", "", "YAML or JSON file, at most 1 MiB"},
                            {"watchFile", "false", "follow changes of the file"}},
                 .make = [](PluginArgs& args) -> StatusOr<std::unique_ptr<Plugin>> {
                   Params params(args.parameters);
                   std::string path = params.String("path", "");
                   const bool watch = params.Bool("watchFile", false);
                   if (path.empty()) params.Fail("path", "expected the path of an endpoints file");
                   return Done(params,
                               std::make_unique<FileDiscovery>(std::move(path), watch, args.env));
                 }});
}

}  // namespace llmd::sched
