// A model server as the scheduler sees it: who it is, and what it last said of itself. A Snapshot
// is the immutable view one decision works on: flat arrays by endpoint index, shared by all
// requests of one epoch.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "llmd/clock.h"

namespace llmd::sched {

// Identity; never changes while the endpoint lives.
struct EndpointInfo {
  std::string name;  // "decode-0"
  std::string ns = "default";
  std::string address;  // IP
  uint16_t port = 0;
  std::map<std::string, std::string> labels;  // llm-d.ai/role …
  int rank = 0;
  // "ip:port", an IPv6 address in brackets.
  std::string HostPort() const {
    const bool v6 = address.find(':') != std::string::npos;
    return (v6 ? "[" + address + "]" : address) + ":" + std::to_string(port);
  }
  std::string FullName() const { return ns + "/" + name; }
  friend bool operator==(const EndpointInfo&, const EndpointInfo&) = default;
};

// The gauges of one scrape (endpoint-picker.md §6.1). Plain values; copied into snapshots.
struct EndpointMetrics {
  double waiting = 0, running = 0;
  double kv_usage = 0;                 // 0..1
  int block_size = 0, num_blocks = 0;  // 0 = not reported
  std::vector<std::string> active_models, waiting_models;
  int max_active_models = 0;
  TimePoint updated{};  // of the last good scrape; epoch = never
  bool ever = false;
};

// Roles of label llm-d.ai/role as bits; several may hold.
enum RoleBits : uint8_t { kRoleEncode = 1, kRolePrefill = 2, kRoleDecode = 4, kRoleUnlabelled = 8 };
inline constexpr std::string_view kRoleLabel = "llm-d.ai/role";
// The bits of a label value; 0 for a value that names no role.
uint8_t RolesOf(const EndpointInfo& info);

// One endpoint by value: what callers of the experiment API (scheduler.h) pass in.
struct EndpointState {
  EndpointInfo info;
  EndpointMetrics metrics;
};

// The members of a pool; rebuilt only when one joins or leaves. Immutable.
struct EndpointSet {
  std::vector<std::shared_ptr<const EndpointInfo>> infos;
  // Small stable number of each endpoint, unique among the living ones: index of per-endpoint
  // plugin state.
  std::vector<uint32_t> slots;
  std::vector<uint8_t> roles;
  std::vector<std::string> names, host_ports;  // "ns/name", "ip:port"
  uint32_t max_slot = 0;                       // one above the largest slot
  void Add(std::shared_ptr<const EndpointInfo> info, uint32_t slot);
  size_t size() const { return infos.size(); }
};

// What one decision sees. Immutable once shared; all vectors have size(). The gauges of a stale
// endpoint are unknown here, for all plugins alike: waiting, running and kv_usage are NaN (scorers
// leave it unscored, which counts as 0) and its adapter lists empty; what does not age (cache
// layout, time of the last scrape) stays.
struct Snapshot {
  uint64_t epoch = 0;
  std::shared_ptr<const EndpointSet> set;
  std::vector<double> waiting, running, kv_usage;
  std::vector<TimePoint> updated;  // epoch = never
  std::vector<uint8_t> stale;      // 1 = not heard of for longer than the pool's limit
  std::vector<std::shared_ptr<const EndpointMetrics>> metrics;
  size_t size() const { return set ? set->size() : 0; }
  const EndpointInfo& info(size_t i) const { return *set->infos[i]; }
  // Appends the metrics of the next endpoint of `set`.
  void Add(std::shared_ptr<const EndpointMetrics> m);
  // The same for an endpoint whose metrics are too old to count.
  void AddStale(const EndpointMetrics& m);
};

}  // namespace llmd::sched
