#include "plugins/data/endpoints_file.h"

#include <arpa/inet.h>
#include <netdb.h>

#include <algorithm>
#include <cctype>
#include <fstream>
#include <set>
#include <sstream>

#include "llmd/sched/plugin.h"

namespace llmd::sched {
namespace {

constexpr size_t kMaxBytes = 1 << 20;

bool IsAddress(const std::string& text) {
  unsigned char buffer[16];
  return inet_pton(AF_INET, text.c_str(), buffer) == 1 ||
         inet_pton(AF_INET6, text.c_str(), buffer) == 1;
}

// Letters, digits, '-', '.' and '_' as in host names; not all digits and dots, which would be a
// mistyped address.
bool IsHostName(const std::string& text) {
  const auto fits = [](unsigned char c) {
    return std::isalnum(c) || c == '-' || c == '.' || c == '_';
  };
  const auto letter = [](unsigned char c) { return std::isalpha(c) != 0; };
  return !text.empty() && text.size() <= 253 && std::all_of(text.begin(), text.end(), fits) &&
         std::any_of(text.begin(), text.end(), letter) && text[0] != '-' && text[0] != '.';
}

// The port is a string upstream; a number is taken too.
uint16_t ReadPort(Params& params) {
  const config::Node node = params.node("port");
  const StatusOr<int64_t> number = node.Int();
  const std::string text = number.ok() ? std::to_string(*number) : node.String().value_or("");
  int port = 0;
  for (char c : text)
    port = c >= '0' && c <= '9' && port < 100'000 ? port * 10 + (c - '0') : 1'000'000;
  if (port < 1 || port > 65535) {
    params.Fail("port", "expected a port from 1 to 65535, got '" + text + "'");
    return 0;
  }
  return static_cast<uint16_t>(port);
}

EndpointInfo ReadEndpoint(Params& params, const std::string& default_namespace) {
  EndpointInfo out;
  out.name = params.String("name", "");
  out.ns = params.String("namespace", default_namespace);
  out.address = params.String("address", "");
  if (out.name.empty()) params.Fail("name", "expected a name");
  if (!IsAddress(out.address) && !IsHostName(out.address))
    params.Fail("address", "expected an IP address or a host name, got '" + out.address + "'");
  out.port = ReadPort(params);
  for (const auto& [key, value] : params.node("labels").Members()) {
    StatusOr<std::string> text = value.String();
    if (!text.ok()) params.Fail(text.status());
    out.labels[key] = text.value_or("");
  }
  return out;
}

}  // namespace

StatusOr<PoolFile> ParsePoolFile(std::string_view text, const std::string& default_namespace) {
  LLMD_ASSIGN_OR_RETURN(const config::Node root, config::Parse(text, {.max_bytes = kMaxBytes}));
  Params top(root);
  const config::Node list = top.node("endpoints");
  if (!list.IsList() && !list.IsNull()) top.Fail("endpoints", "expected a list");
  PoolFile out;
  std::set<std::string> names;
  for (const config::Node& item : list.Items()) {
    Params params(item);
    EndpointInfo endpoint = ReadEndpoint(params, default_namespace);
    if (!names.insert(endpoint.FullName()).second)
      params.Fail("name", "'" + endpoint.FullName() + "' appears twice");
    if (Status status = params.Finish(); !status.ok()) top.Fail(std::move(status));
    out.endpoints.push_back(std::move(endpoint));
  }
  out.policy = ReadPolicy(top);
  LLMD_RETURN_IF_ERROR(top.Finish());
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

Status ResolveHosts(std::vector<EndpointInfo>& endpoints) {
  for (EndpointInfo& e : endpoints) {
    if (IsAddress(e.address)) continue;
    addrinfo hints{}, *found = nullptr;
    hints.ai_socktype = SOCK_STREAM;
    if (const int error = getaddrinfo(e.address.c_str(), nullptr, &hints, &found); error != 0) {
      return Unavailable("endpoint " + e.FullName() + ": host '" + e.address +
                         "' cannot be resolved: " + gai_strerror(error));
    }
    char text[NI_MAXHOST] = "";
    getnameinfo(found->ai_addr, found->ai_addrlen, text, sizeof(text), nullptr, 0, NI_NUMERICHOST);
    freeaddrinfo(found);
    e.address = text;
  }
  return OkStatus();
}

}  // namespace llmd::sched
