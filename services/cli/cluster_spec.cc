#include "cli/cluster_spec.h"

#include <sched.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "llmd/config.h"

namespace llmd::cli {
namespace {

constexpr int64_t kDefaultKvCacheBytes = int64_t{128} << 20;

template <typename T, typename Read>
Status Optional(const config::Node& node, T& target, Read read) {
  if (node.IsNull()) return OkStatus();
  LLMD_ASSIGN_OR_RETURN(target, read(node));
  return OkStatus();
}

auto ReadString(const config::Node& n) {
  return n.String();
}
auto ReadStrings(const config::Node& n) {
  return n.Strings();
}

StatusOr<uint16_t> ReadPort(const config::Node& node) {
  LLMD_ASSIGN_OR_RETURN(const int64_t port, node.Int());
  if (port < 0 || port > 65535) return node.Error("expected a port of 0 to 65535");
  return static_cast<uint16_t>(port);
}

StatusOr<int> ReadThreads(const config::Node& node) {
  LLMD_ASSIGN_OR_RETURN(const int64_t threads, node.Int());
  if (threads < 0 || threads > 1024) return node.Error("expected 0 to 1024 threads");
  return static_cast<int>(threads);
}

StatusOr<int64_t> ReadBytes(const config::Node& node) {
  LLMD_ASSIGN_OR_RETURN(const double bytes, node.Quantity());
  if (bytes < (1 << 20)) return node.Error("expected at least 1Mi");
  return static_cast<int64_t>(bytes);
}

Status ReadEngine(const config::Node& node, EngineSpec& engine) {
  LLMD_RETURN_IF_ERROR(Optional(node.Get("name"), engine.name, ReadString));
  LLMD_RETURN_IF_ERROR(Optional(node.Get("role"), engine.role, ReadString));
  if (engine.role != "decode" && engine.role != "prefill" && engine.role != "both") {
    return node.Get("role").Error("expected decode, prefill or both, got '" + engine.role + "'");
  }
  LLMD_RETURN_IF_ERROR(Optional(node.Get("threads"), engine.threads, ReadThreads));
  LLMD_RETURN_IF_ERROR(Optional(node.Get("kvCacheBytes"), engine.kv_cache_bytes, ReadBytes));
  return Optional(node.Get("args"), engine.args, ReadStrings);
}

Status CheckHeader(const config::Node& root) {
  LLMD_ASSIGN_OR_RETURN(const std::string kind, root.Get("kind").String());
  if (kind != "LlmdCluster")
    return root.Get("kind").Error("expected LlmdCluster, got '" + kind + "'");
  std::string version;
  LLMD_RETURN_IF_ERROR(Optional(root.Get("apiVersion"), version, ReadString));
  if (!version.empty() && version != "llm-d.ai/v1alpha1") {
    return root.Get("apiVersion").Error("expected llm-d.ai/v1alpha1, got '" + version + "'");
  }
  return OkStatus();
}

void NameEngines(ClusterSpec& spec) {
  int decode = 0, prefill = 0, both = 0;
  for (EngineSpec& engine : spec.engines) {
    int& count = engine.role == "decode" ? decode : engine.role == "prefill" ? prefill : both;
    if (engine.name.empty()) engine.name = engine.role + "-" + std::to_string(count);
    ++count;
  }
}

// Each engine at least one thread; what is left over goes to the engines in their order.
void ShareThreads(ClusterSpec& spec, int cores) {
  std::vector<EngineSpec*> open;
  for (EngineSpec& engine : spec.engines) {
    if (engine.threads == 0) {
      open.push_back(&engine);
    } else {
      cores -= engine.threads;
    }
  }
  const int count = static_cast<int>(open.size());
  for (int i = 0; i < count; ++i) {
    const int share = std::max(cores, 0) / count + (i < std::max(cores, 0) % count ? 1 : 0);
    open[i]->threads = std::max(1, share);
  }
}

// Who decides, the gateway or a picker of its own, and by which configuration.
Status ReadScheduling(const config::Node& root, ClusterSpec& spec) {
  const config::Node own = root.Get("gateway").Get("configFile");
  spec.picker_process = root.Has("epp");
  if (spec.picker_process && !own.IsNull()) {
    return own.Error(
        "with a picker of its own (epp) the gateway decides nothing: give epp.configFile");
  }
  return Optional(spec.picker_process ? root.Get("epp").Get("configFile") : own, spec.config_file,
                  ReadString);
}

}  // namespace

StatusOr<ClusterSpec> ParseCluster(const std::string& yaml_path) {
  LLMD_ASSIGN_OR_RETURN(const config::Node root, config::ParseFile(yaml_path));
  LLMD_RETURN_IF_ERROR(CheckHeader(root));
  ClusterSpec spec;
  LLMD_RETURN_IF_ERROR(Optional(root.Get("name"), spec.name, ReadString));
  LLMD_RETURN_IF_ERROR(Optional(root.Get("model"), spec.model, ReadString));
  LLMD_RETURN_IF_ERROR(Optional(root.Get("servedModelName"), spec.served_model_name, ReadString));
  LLMD_RETURN_IF_ERROR(Optional(root.Get("gateway").Get("port"), spec.gateway_port, ReadPort));
  LLMD_RETURN_IF_ERROR(ReadScheduling(root, spec));
  LLMD_RETURN_IF_ERROR(Optional(root.Get("transport"), spec.transport, ReadString));
  for (const config::Node& node : root.Get("engines").Items()) {
    LLMD_RETURN_IF_ERROR(ReadEngine(node, spec.engines.emplace_back()));
  }
  LLMD_RETURN_IF_ERROR(root.RejectUnknown());
  return spec;
}

Status Complete(ClusterSpec& spec, int cores) {
  if (spec.model.empty())
    return InvalidArgument("no model: give --model FILE.gguf or `model:` in the cluster file");
  if (!std::filesystem::exists(spec.model))
    return NotFound("model file '" + spec.model + "' does not exist");
  if (spec.name.empty() ||
      spec.name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-") != std::string::npos) {
    return InvalidArgument("cluster name '" + spec.name +
                           "': expected lower-case letters, digits and '-'");
  }
  if (spec.transport != "auto" && spec.transport != "memfd" && spec.transport != "tcp") {
    return InvalidArgument("transport '" + spec.transport + "': expected auto, memfd or tcp");
  }
  if (spec.served_model_name.empty())
    spec.served_model_name = std::filesystem::path(spec.model).stem().string();
  if (spec.engines.empty()) {
    spec.engines.resize(3);
    spec.engines[0].role = "prefill";
  }
  NameEngines(spec);
  std::set<std::string> names;
  bool decodes = false;
  for (EngineSpec& engine : spec.engines) {
    if (!names.insert(engine.name).second)
      return InvalidArgument("two engines are called '" + engine.name + "'");
    if (engine.kv_cache_bytes == 0) engine.kv_cache_bytes = kDefaultKvCacheBytes;
    decodes |= engine.role != "prefill";
  }
  if (!decodes)
    return InvalidArgument("no engine decodes: at least one needs the role decode or both");
  ShareThreads(spec, cores);
  return OkStatus();
}

int AvailableCores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  return sched_getaffinity(0, sizeof(set), &set) == 0 ? std::max(1, CPU_COUNT(&set)) : 1;
}

}  // namespace llmd::cli
