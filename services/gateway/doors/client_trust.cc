#include "gateway/doors/client_trust.h"

#include <algorithm>
#include <array>

#include "llmd/format.h"

namespace llmd::doors {
namespace {

constexpr std::array<std::string_view, 9> kDestinations = {"x-gateway-destination-endpoint",
                                                           "x-gateway-destination-endpoint-subset",
                                                           "x-gateway-destination-endpoint-scores",
                                                           "x-gateway-destination-endpoint-served",
                                                           "x-prefiller-host-port",
                                                           "x-prefiller-url",
                                                           "x-encoder-hosts-ports",
                                                           "x-kv-cache-source-host-port",
                                                           "x-data-parallel-host-port"};
constexpr std::array<std::string_view, 12> kPriorities = {
    "x-llm-d-inference-fairness-id", "x-gateway-inference-fairness-id",
    "x-llm-d-inference-objective",   "x-gateway-inference-objective",
    "x-llm-d-model-name-rewrite",    "x-gateway-model-name-rewrite",
    "x-llm-d-slo-ttft-ms",           "x-slo-ttft-ms",
    "x-llm-d-slo-tpot-ms",           "x-slo-tpot-ms",
    "x-llm-d-inference-ttl",         "x-llm-d-pool"};

// The last elements of a list that may be spread over several lines.
class LastHops {
 public:
  void Add(std::string_view hop) { hops_[count_++ % hops_.size()] = Trim(hop); }
  // From the last to the first that is kept.
  size_t size() const { return std::min(count_, hops_.size()); }
  std::string_view FromEnd(size_t i) const { return hops_[(count_ - 1 - i) % hops_.size()]; }

 private:
  std::array<std::string_view, ClientTrust::kMaxHops> hops_;
  size_t count_ = 0;
};

// Commas outside quotes part the elements; within quotes a backslash takes the next one.
void AddElements(std::string_view value, LastHops& hops) {
  bool quoted = false;
  size_t begin = 0;
  for (size_t i = 0; i < value.size(); ++i) {
    if (quoted && value[i] == '\\') {
      ++i;
    } else if (value[i] == '"') {
      quoted = !quoted;
    } else if (value[i] == ',' && !quoted) {
      hops.Add(value.substr(begin, i - begin));
      begin = i + 1;
    }
  }
  hops.Add(value.substr(begin));
}

// The node of for= in an element of Forwarded; "" without one.
std::string_view ForOf(std::string_view element) {
  while (!element.empty()) {
    const size_t semicolon = element.find(';');  // no address holds one
    std::string_view pair = Trim(element.substr(0, semicolon));
    if (pair.size() > 4 && EqualsIgnoreCase(pair.substr(0, 4), "for=")) {
      pair.remove_prefix(4);
      if (pair.size() >= 2 && pair.front() == '"' && pair.back() == '"')
        pair = pair.substr(1, pair.size() - 2);
      return pair;
    }
    element.remove_prefix(semicolon == std::string_view::npos ? element.size() : semicolon + 1);
  }
  return {};
}

bool IsOneOf(std::string_view name, std::span<const std::string_view> names) {
  return std::any_of(names.begin(), names.end(),
                     [&](std::string_view one) { return EqualsIgnoreCase(name, one); });
}

}  // namespace

SteeringHeader SteeringHeaderOf(std::string_view name) {
  if (name.size() < 2 || (name[0] != 'x' && name[0] != 'X') || name[1] != '-')
    return SteeringHeader::kNone;
  if (IsOneOf(name, kDestinations)) return SteeringHeader::kDestination;
  return IsOneOf(name, kPriorities) ? SteeringHeader::kPriority : SteeringHeader::kNone;
}

IpAddress ClientTrust::ClientOf(const IpAddress& peer, HeaderSpan headers) const {
  if (!proxies_.Contains(peer)) return peer;
  const bool forwarded = header_ == AddressHeader::kForwarded;
  const std::string_view wanted = forwarded ? "forwarded" : "x-forwarded-for";
  LastHops hops;
  for (size_t i = 0; i < headers.size(); ++i) {
    if (const HeaderLine line = headers[i]; EqualsIgnoreCase(line.name, wanted))
      AddElements(line.value, hops);
  }
  IpAddress client = peer;
  for (size_t i = 0; i < hops.size(); ++i) {
    const std::string_view hop = hops.FromEnd(i);
    const auto address = IpAddress::ParseNode(forwarded ? ForOf(hop) : hop);
    if (!address) break;
    client = *address;
    if (!proxies_.Contains(client)) break;
  }
  return client;
}

}  // namespace llmd::doors
