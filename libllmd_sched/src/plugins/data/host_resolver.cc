#include "plugins/data/host_resolver.h"

#include <arpa/inet.h>
#include <netdb.h>

#include <algorithm>
#include <array>
#include <set>

namespace llmd::sched {
namespace {

bool IsV6(const std::string& address) {
  return address.find(':') != std::string::npos;
}

// 10.0.0.9 comes before 10.0.0.10.
std::array<unsigned char, 16> BytesOf(const std::string& address) {
  std::array<unsigned char, 16> out{};
  inet_pton(IsV6(address) ? AF_INET6 : AF_INET, address.c_str(), out.data());
  return out;
}

// Of one family, in order, each once.
std::vector<std::string> Usable(std::vector<std::string> addresses) {
  if (!std::all_of(addresses.begin(), addresses.end(), IsV6)) std::erase_if(addresses, IsV6);
  std::sort(addresses.begin(), addresses.end(),
            [](const auto& a, const auto& b) { return BytesOf(a) < BytesOf(b); });
  addresses.erase(std::unique(addresses.begin(), addresses.end()), addresses.end());
  return addresses;
}

}  // namespace

bool IsAddressLiteral(const std::string& text) {
  unsigned char buffer[16];
  return inet_pton(AF_INET, text.c_str(), buffer) == 1 ||
         inet_pton(AF_INET6, text.c_str(), buffer) == 1;
}

StatusOr<std::vector<std::string>> LookupHost(const std::string& host) {
  addrinfo hints{}, *found = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  if (const int error = getaddrinfo(host.c_str(), nullptr, &hints, &found); error != 0) {
    return Unavailable("host '" + host + "' cannot be resolved: " + gai_strerror(error));
  }
  std::vector<std::string> out;
  for (const addrinfo* a = found; a != nullptr; a = a->ai_next) {
    char text[NI_MAXHOST] = "";
    const int error =
        getnameinfo(a->ai_addr, a->ai_addrlen, text, sizeof(text), nullptr, 0, NI_NUMERICHOST);
    // A scope ("fe80::1%eth0") holds on this machine's links only.
    if (error == 0 && IsAddressLiteral(text)) out.emplace_back(text);
  }
  freeaddrinfo(found);
  if (out.empty()) return Unavailable("host '" + host + "' has no IP address");
  return out;
}

const std::vector<std::string>& HostResolver::Look(const std::string& host,
                                                   std::vector<std::string>* problems) {
  std::vector<std::string>& known = known_[host];
  StatusOr<std::vector<std::string>> found = lookup_(host);
  if (!found.ok()) {
    problems->push_back(found.status().message() +
                        (known.empty() ? "" : "; keeping " + known.front()));
    return known;
  }
  std::vector<std::string> now = Usable(std::move(*found));
  if (!all_ && now.size() > 1) {
    const bool stays = !known.empty() && std::find(now.begin(), now.end(), known[0]) != now.end();
    now = {stays ? known[0] : now[0]};
  }
  return known = std::move(now);
}

std::vector<EndpointInfo> HostResolver::Resolve(const std::vector<EndpointInfo>& endpoints,
                                                std::vector<std::string>* problems) {
  std::vector<EndpointInfo> out;
  std::set<std::string> looked, names;
  for (const EndpointInfo& e : endpoints) {
    if (IsAddressLiteral(e.address)) {
      out.push_back(e);
      continue;
    }
    if (looked.insert(e.address).second) Look(e.address, problems);
    for (const std::string& address : known_[e.address]) {
      out.push_back(e);
      out.back().address = address;
      if (all_) out.back().name += "-" + address;
    }
  }
  std::erase_if(known_, [&](const auto& entry) { return !looked.contains(entry.first); });
  std::erase_if(out, [&](const EndpointInfo& e) {
    const bool again = !names.insert(e.FullName()).second;
    if (again)
      problems->push_back("endpoint '" + e.FullName() + "' appears twice once hosts are resolved");
    return again;
  });
  return out;
}

}  // namespace llmd::sched
