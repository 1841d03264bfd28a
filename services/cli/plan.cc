#include "cli/plan.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <memory>
#include <set>
#include <sstream>

#include "cli/run_dir.h"

namespace llmd::cli {
namespace {

constexpr uint16_t kSidecarBase = 8100, kEngineBase = 8200, kSideChannelBase = 5600;
constexpr uint16_t kEppPort = 9002, kEppHealthPort = 9003, kEppMetricsPort = 9090;

bool CanBind(uint16_t port, uint16_t* bound) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return false;
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  const bool ok =
      bind(fd, generic, size) == 0 && listen(fd, 1) == 0 && getsockname(fd, generic, &size) == 0;
  *bound = ntohs(address.sin_port);
  close(fd);
  return ok;
}

std::string Str(int64_t n) {
  return std::to_string(n);
}

// Prompts of a few hundred tokens with nothing cached are prefilled elsewhere; the rest stays on
// the decode engine.
std::string DefaultConfig(const std::string& endpoints_path, bool disaggregate) {
  std::string yaml =
      "apiVersion: llm-d.ai/v1alpha1\n"
      "kind: EndpointPickerConfig\n"
      "plugins:\n"
      "- {type: openai-parser}\n"
      "- {type: passthrough-parser}\n"
      "- {type: token-producer}\n"
      "- {type: approx-prefix-cache-producer}\n"
      "- {type: decode-filter}\n"
      "- {type: prefill-filter}\n"
      "- {type: prefix-cache-scorer}\n"
      "- {type: load-aware-scorer}\n"
      "- {type: max-score-picker}\n"
      "- type: file-discovery\n"
      "  parameters: {path: \"" +
      endpoints_path + "\", watchFile: true}\n";
  if (disaggregate) {
    yaml +=
        "- {type: prefix-based-pd-decider, parameters: {nonCachedTokens: 64}}\n"
        "- type: disagg-profile-handler\n"
        "  parameters: {deciders: {prefill: prefix-based-pd-decider}}\n";
  }
  yaml += "schedulingProfiles:\n";
  if (disaggregate) {
    yaml +=
        "- name: prefill\n"
        "  plugins: [{pluginRef: prefill-filter}, {pluginRef: prefix-cache-scorer, weight: 2}, "
        "{pluginRef: load-aware-scorer}, {pluginRef: max-score-picker}]\n";
  }
  return yaml +
         "- name: decode\n"
         "  plugins: [{pluginRef: decode-filter}, {pluginRef: prefix-cache-scorer, weight: 2}, "
         "{pluginRef: load-aware-scorer}, {pluginRef: max-score-picker}]\n"
         "dataLayer:\n"
         "  discovery: {pluginRef: file-discovery}\n"
         "requestHandler:\n"
         "  parsers: [{pluginRef: openai-parser}, {pluginRef: passthrough-parser}]\n";
}

class Planner {
 public:
  Planner(const ClusterSpec& spec, std::string bin_dir, std::string run_dir, const PortPicker& pick)
      : spec_(spec), bin_(std::move(bin_dir) + "/"), run_(std::move(run_dir)), pick_(pick) {}

  StatusOr<ClusterPlan> Make() {
    plan_.name = spec_.name;
    plan_.served_model_name = spec_.served_model_name;
    plan_.gateway_port = pick_(spec_.gateway_port);
    if (spec_.gateway_port != 0 && plan_.gateway_port != spec_.gateway_port) {
      return AlreadyExists("gateway port " + Str(spec_.gateway_port) +
                           " is in use; choose another with --port");
    }
    for (size_t i = 0; i < spec_.engines.size(); ++i)
      AddEngine(spec_.engines[i], static_cast<int>(i));
    for (size_t i = 0; i < spec_.engines.size(); ++i)
      AddSidecar(spec_.engines[i], static_cast<int>(i));
    WriteConfig();
    if (spec_.picker_process) AddPicker();
    AddGateway();
    return std::move(plan_);
  }

 private:
  void AddEngine(const EngineSpec& engine, int index) {
    const uint16_t port = pick_(static_cast<uint16_t>(kEngineBase + index));
    engine_ports_.push_back(port);
    const std::string transfer =
        R"({"kv_connector":"NixlConnector","kv_role":"kv_both","kv_connector_extra_config":{"transport":")" +
        spec_.transport + R"("}})";
    ProcessPlan process{
        engine.name,
        engine.role,
        {bin_ + "llmd-engine", "serve", spec_.model, "--host", "127.0.0.1", "--port", Str(port),
         "--served-model-name", spec_.served_model_name, "--threads", Str(engine.threads),
         "--kv-cache-memory-bytes", Str(engine.kv_cache_bytes), "--enable-prompt-tokens-details",
         "--kv-transfer-config", transfer},
        port,
        "/health",
        {"VLLM_NIXL_SIDE_CHANNEL_PORT=" +
         Str(pick_(static_cast<uint16_t>(kSideChannelBase + index)))}};
    process.argv.insert(process.argv.end(), engine.args.begin(), engine.args.end());
    plan_.processes.push_back(std::move(process));
  }

  void AddSidecar(const EngineSpec& engine, int index) {
    uint16_t serving_port = engine_ports_[index];
    if (engine.role != "prefill") {
      serving_port = pick_(static_cast<uint16_t>(kSidecarBase + index));
      plan_.processes.push_back(
          {engine.name + "-sidecar",
           "sidecar",
           {bin_ + "llmd-sidecar", "--host", "127.0.0.1", "--port", Str(serving_port),
            "--model-server-port", Str(engine_ports_[index]), "--secure-proxy=false"},
           serving_port,
           "/ready",
           {}});
    }
    endpoints_ += "- name: " + engine.name + "\n  address: 127.0.0.1\n  port: \"" +
                  Str(serving_port) + "\"\n  labels: {llm-d.ai/role: " + engine.role + "}\n";
  }

  void WriteConfig() {
    const std::string endpoints_path = run_ + "/endpoints.yaml";
    plan_.files.emplace_back(endpoints_path, "endpoints:\n" + endpoints_);
    config_path_ = spec_.config_file;
    if (!config_path_.empty()) return;
    bool prefill = false;
    for (const EngineSpec& engine : spec_.engines) prefill |= engine.role != "decode";
    config_path_ = run_ + "/scheduling.yaml";
    plan_.files.emplace_back(config_path_, DefaultConfig(endpoints_path, prefill));
  }

  void AddPicker() {
    epp_port_ = pick_(kEppPort);
    plan_.admin_port = pick_(kEppMetricsPort);
    plan_.processes.push_back({"epp",
                               "epp",
                               {bin_ + "llmd-epp", "--config-file", config_path_, "--grpc-host",
                                "127.0.0.1", "--metrics-host", "127.0.0.1", "--grpc-port",
                                Str(epp_port_), "--grpc-health-port", Str(pick_(kEppHealthPort)),
                                "--metrics-port", Str(plan_.admin_port), "--secure-serving=false",
                                "--metrics-endpoint-auth=false", "--health-checking", "-v", "4"},
                               plan_.admin_port,
                               "/readyz",
                               {}});
  }

  void AddGateway() {
    ProcessPlan process{
        "gateway",
        "gateway",
        {bin_ + "llmd-gateway", "--host", "127.0.0.1", "--port", Str(plan_.gateway_port)},
        plan_.gateway_port,
        "/ready",
        {}};
    std::vector<std::string> decides = {"--epp", "127.0.0.1:" + Str(epp_port_)};
    if (!spec_.picker_process) {
      plan_.admin_port = pick_(kEppMetricsPort);
      decides = {"--config-file",
                 config_path_,
                 "--metrics-host",
                 "127.0.0.1",
                 "--metrics-port",
                 Str(plan_.admin_port),
                 "--metrics-endpoint-auth=false",
                 "-v",
                 "4"};
    }
    process.argv.insert(process.argv.end(), decides.begin(), decides.end());
    plan_.processes.push_back(std::move(process));
  }

  const ClusterSpec& spec_;
  const std::string bin_, run_;
  const PortPicker& pick_;
  ClusterPlan plan_;
  std::vector<uint16_t> engine_ports_;
  std::string endpoints_, config_path_;
  uint16_t epp_port_ = 0;
};

}  // namespace

PortPicker FreePorts() {
  auto given = std::make_shared<std::set<uint16_t>>();
  return [given](uint16_t wanted) {
    uint16_t port = 0;
    if (wanted != 0 && !given->contains(wanted) && CanBind(wanted, &port)) {
      given->insert(port);
      return port;
    }
    for (int attempt = 0; attempt < 64; ++attempt) {
      if (CanBind(0, &port) && given->insert(port).second) return port;
    }
    return uint16_t{0};
  };
}

StatusOr<ClusterPlan> MakePlan(const ClusterSpec& spec, const std::string& bin_dir,
                               const std::string& run_dir, const PortPicker& pick) {
  return Planner(spec, bin_dir, run_dir, pick).Make();
}

std::string ClusterPlan::Summary() const {
  const auto count = [this](auto matches, const std::string& word) {
    const auto n = std::count_if(processes.begin(), processes.end(), matches);
    return n == 1 ? "one " + word : Str(n) + " " + word + "s";
  };
  const auto is_sidecar = [](const ProcessPlan& p) { return p.role == "sidecar"; };
  const auto is_engine = [&](const ProcessPlan& p) {
    return p.role != "sidecar" && p.role != "epp" && p.role != "gateway";
  };
  const bool picks = std::any_of(processes.begin(), processes.end(),
                                 [](const ProcessPlan& p) { return p.role == "epp"; });
  return count(is_engine, "engine") + ", " + count(is_sidecar, "sidecar") +
         (picks ? ", a picker and a gateway for " : " and a gateway for ") + served_model_name;
}

json::Value ClusterPlan::RunFile() const {
  json::Array list;
  for (const ProcessPlan& process : processes) {
    json::Value entry;
    entry.Set("name", process.name);
    entry.Set("role", process.role);
    entry.Set("port", int64_t{process.health_port});
    list.push_back(std::move(entry));
  }
  json::Value out;
  out.Set("model", served_model_name);
  out.Set("gatewayPort", int64_t{gateway_port});
  out.Set("adminPort", int64_t{admin_port});
  out.Set("pid", int64_t{getpid()});
  out.Set("processes", std::move(list));
  return out;
}

StatusOr<json::Value> ReadRunFile(const std::string& cluster_name) {
  LLMD_RETURN_IF_ERROR(CheckRunDirectory());
  const std::string path = RunDirectory(cluster_name) + "/run.json";
  std::ifstream in(path);
  if (!in)
    return NotFound("no cluster called '" + cluster_name + "' runs here (" + path + " is absent)");
  std::stringstream text;
  text << in.rdbuf();
  return json::Parse(text.str());
}

}  // namespace llmd::cli
