// Host names of an endpoints file as addresses: looked up again from time to time, what was known
// kept while a lookup fails.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "llmd/sched/endpoint.h"
#include "llmd/status.h"

namespace llmd::sched {

// Whether `text` is an IPv4 or IPv6 literal.
bool IsAddressLiteral(const std::string& text);

// All addresses of a host as literals.
using HostLookup = std::function<StatusOr<std::vector<std::string>>(const std::string& host)>;
// The system's resolver: blocks, up to its timeout. UNAVAILABLE names the host.
StatusOr<std::vector<std::string>> LookupHost(const std::string& host);

// Thread-compatible.
class HostResolver {
 public:
  // `all`: a host stands for one endpoint at each of its addresses, "<name>-<address>". Otherwise
  // for one: the address it had while the host still has it, else the lowest. IPv6 counts where
  // there is no IPv4.
  HostResolver(HostLookup lookup, bool all) : lookup_(std::move(lookup)), all_(all) {}

  // `endpoints` with addresses in place of hosts, each host looked up once. A host that cannot be
  // resolved keeps the addresses it had; its endpoints are left out when it had none. `problems`
  // gets a line for each.
  std::vector<EndpointInfo> Resolve(const std::vector<EndpointInfo>& endpoints,
                                    std::vector<std::string>* problems);

 private:
  const std::vector<std::string>& Look(const std::string& host, std::vector<std::string>* problems);
  const HostLookup lookup_;
  const bool all_;
  std::map<std::string, std::vector<std::string>> known_;  // what each host stands for
};

}  // namespace llmd::sched
