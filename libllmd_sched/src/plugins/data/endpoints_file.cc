#include "plugins/data/endpoints_file.h"

#include <algorithm>
#include <cctype>
#include <fstream>
#include <set>
#include <sstream>

#include "llmd/sched/plugin.h"
#include "plugins/data/host_resolver.h"

namespace llmd::sched {
namespace {

constexpr size_t kMaxBytes = 1 << 20;
constexpr size_t kMaxRanks = 8;  // as targetPorts of an InferencePool
constexpr size_t kMaxName = 253, kMaxLabelName = 63;
constexpr const char* kActivePorts = "llm-d.ai/active-ports";
constexpr const char* kOldActivePorts = "inference.networking.k8s.io/active-ports";

bool IsAlnum(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0;
}

// Letters, digits and `others`, a letter or digit at both ends.
bool IsWord(std::string_view text, std::string_view others, size_t longest) {
  const auto fits = [&](char c) { return IsAlnum(c) || others.find(c) != std::string_view::npos; };
  return !text.empty() && text.size() <= longest && IsAlnum(text.front()) && IsAlnum(text.back()) &&
         std::all_of(text.begin(), text.end(), fits);
}

// As in host names; not all digits and dots, which would be a mistyped address.
bool IsHostName(const std::string& text) {
  const auto letter = [](unsigned char c) { return std::isalpha(c) != 0; };
  return IsWord(text, "-._", kMaxName) && std::any_of(text.begin(), text.end(), letter);
}

// "prefix/name" as Kubernetes has it.
bool IsLabelKey(std::string_view key) {
  const size_t slash = key.find('/');
  if (slash == std::string_view::npos) return IsWord(key, "-._", kMaxLabelName);
  return IsWord(key.substr(0, slash), "-.", kMaxName) &&
         IsWord(key.substr(slash + 1), "-._", kMaxLabelName);
}

bool IsLabelValue(std::string_view value) {
  return value.size() <= kMaxName && std::none_of(value.begin(), value.end(), [](unsigned char c) {
           return std::iscntrl(c) != 0;
         });
}

// 0 when it is none.
uint16_t PortOf(std::string_view text) {
  int port = 0;
  for (char c : text)
    port = c >= '0' && c <= '9' && port < 100'000 ? port * 10 + (c - '0') : 1'000'000;
  return port < 1 || port > 65535 ? 0 : static_cast<uint16_t>(port);
}

// The port is a string upstream; a number is taken too.
uint16_t ReadPort(Params& params, const config::Node& node) {
  const StatusOr<int64_t> number = node.Int();
  const std::string text = number.ok() ? std::to_string(*number) : node.String().value_or("");
  const uint16_t port = PortOf(text);
  if (port == 0) params.Fail(node.Error("expected a port from 1 to 65535, got '" + text + "'"));
  return port;
}

std::vector<uint16_t> ReadPorts(Params& params) {
  if (!params.Has("ports")) return {ReadPort(params, params.node("port"))};
  if (params.Has("port")) params.Fail("port", "an endpoint has port or ports, not both");
  const std::vector<config::Node> items = params.node("ports").Items();
  if (items.empty() || items.size() > kMaxRanks)
    params.Fail("ports", "expected a list of 1 to 8 ports");
  std::vector<uint16_t> out;
  for (const config::Node& item : items) {
    const uint16_t port = ReadPort(params, item);
    if (port != 0 && std::find(out.begin(), out.end(), port) != out.end())
      params.Fail(item.Error("port " + std::to_string(port) + " appears twice"));
    out.push_back(port);
  }
  return out;
}

void ReadLabels(Params& params, std::map<std::string, std::string>* labels) {
  const config::Node node = params.node("labels");
  if (!node.IsMap() && !node.IsNull()) params.Fail("labels", "expected a map");
  for (const auto& [key, value] : node.Members()) {
    const StatusOr<std::string> text = value.String();
    if (!text.ok()) params.Fail(text.status());
    if (!IsLabelKey(key))
      params.Fail(value.Error("'" + key + "' is no label name: expected [prefix/]name"));
    if (!IsLabelValue(text.value_or("")))
      params.Fail(value.Error("expected a label value of at most 253 characters"));
    (*labels)[key] = text.value_or("");
  }
}

// The ports that the label leaves; all without the label.
std::set<uint16_t> ActivePorts(Params& params, const EndpointInfo& endpoint,
                               const std::vector<uint16_t>& ports) {
  auto label = endpoint.labels.find(kActivePorts);
  if (label == endpoint.labels.end()) label = endpoint.labels.find(kOldActivePorts);
  if (label == endpoint.labels.end()) return {ports.begin(), ports.end()};
  std::set<uint16_t> out;
  std::stringstream list(label->second);
  for (std::string text; std::getline(list, text, ',');) {
    std::erase(text, ' ');
    const uint16_t port = PortOf(text);
    if (port == 0)
      params.Fail("labels", label->first + ": expected ports with commas between, got '" +
                                label->second + "'");
    out.insert(port);
  }
  return out;
}

void ReadEndpoint(Params& params, const std::string& default_namespace,
                  std::vector<EndpointInfo>* out) {
  EndpointInfo endpoint;
  endpoint.name = params.String("name", "");
  endpoint.ns = params.String("namespace", default_namespace);
  endpoint.address = params.String("address", "");
  if (endpoint.name.empty()) {
    params.Fail("name", "expected a name");
  } else if (!IsWord(endpoint.name, "-._:", kMaxName)) {
    params.Fail("name",
                "expected letters, digits, '-', '_', '.' and ':', got '" + endpoint.name + "'");
  }
  if (!IsWord(endpoint.ns, "-._", kMaxName))
    params.Fail("namespace",
                "expected letters, digits, '-', '_' and '.', got '" + endpoint.ns + "'");
  if (!IsAddressLiteral(endpoint.address) && !IsHostName(endpoint.address))
    params.Fail("address", "expected an IP address or a host name, got '" + endpoint.address + "'");
  const std::vector<uint16_t> ports = ReadPorts(params);
  ReadLabels(params, &endpoint.labels);
  const std::set<uint16_t> active = ActivePorts(params, endpoint, ports);
  for (size_t rank = 0; rank < ports.size(); ++rank) {
    if (!active.contains(ports[rank])) continue;
    out->push_back(endpoint);
    out->back().port = ports[rank];
    out->back().rank = static_cast<int>(rank);
    if (params.Has("ports")) out->back().name += "-rank-" + std::to_string(rank);
  }
}

std::vector<std::string> Doubts(const std::vector<EndpointInfo>& endpoints) {
  std::vector<std::string> out;
  std::map<std::string, std::string> places;
  for (const EndpointInfo& e : endpoints) {
    const auto [other, fresh] = places.try_emplace(e.HostPort(), e.FullName());
    if (!fresh) {
      out.push_back("endpoints '" + other->second + "' and '" + e.FullName() + "' are both at " +
                    e.HostPort());
    }
    if (RolesOf(e) == 0) {
      out.push_back("endpoint '" + e.FullName() + "': '" + e.labels.at(std::string(kRoleLabel)) +
                    "' is no role: no role filter keeps it");
    }
  }
  return out;
}

}  // namespace

StatusOr<PoolFile> ParsePoolFile(std::string_view text, const std::string& default_namespace) {
  LLMD_ASSIGN_OR_RETURN(const config::Node root, config::Parse(text, {.max_bytes = kMaxBytes}));
  Params top(root);
  const config::Node list = top.node("endpoints");
  // A file that is only half written says nothing; that there are none must be said.
  if (!list.IsList()) top.Fail("endpoints", "expected a list; [] says that there are none");
  PoolFile out;
  std::set<std::string> names;
  for (const config::Node& item : list.Items()) {
    Params params(item);
    const size_t first = out.endpoints.size();
    ReadEndpoint(params, default_namespace, &out.endpoints);
    for (size_t i = first; i < out.endpoints.size(); ++i) {
      const std::string name = out.endpoints[i].FullName();
      if (!names.insert(name).second) params.Fail("name", "'" + name + "' appears twice");
    }
    if (Status status = params.Finish(); !status.ok()) top.Fail(status);
  }
  out.policy = ReadPolicy(top);
  (void)top.node("routes");  // of llmd-gateway, which reads them itself
  LLMD_RETURN_IF_ERROR(top.Finish());
  out.warnings = Doubts(out.endpoints);
  return out;
}

StatusOr<PoolFile> ReadPoolFile(const std::string& path, const std::string& default_namespace) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return NotFound("endpoints file '" + path + "' cannot be opened");
  std::string text(kMaxBytes + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(file.gcount()));
  if (text.size() > kMaxBytes)
    return InvalidArgument("endpoints file '" + path + "' is larger than 1 MiB");
  StatusOr<PoolFile> out = ParsePoolFile(text, default_namespace);
  if (!out.ok()) return out.status().WithContext(path);
  return out;
}

}  // namespace llmd::sched
