// A model server as the scheduler sees it: who it is, and what it last said of itself. A Snapshot
// is the immutable view one decision works on: flat arrays by endpoint index, shared by all
// requests of one epoch.
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "llmd/clock.h"
#include "llmd/sched/endpoint_life.h"

namespace llmd::sched {

// What discovery says of it. Name, address and port make the identity; the rest may be edited.
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

// A named number of each endpoint, filled by an extractor and read by filters and scorers: a small
// integer, handed out while a graph is built (PluginEnv). The first ones are what EndpointMetrics
// holds anyway.
using AttributeId = int;
inline constexpr AttributeId kNoAttribute = -1;
inline constexpr AttributeId kWaitingAttribute = 0, kRunningAttribute = 1, kKvUsageAttribute = 2,
                             kMaxActiveModelsAttribute = 3, kActiveModelsAttribute = 4,
                             kWaitingModelsAttribute = 5, kBlockSizeAttribute = 6,
                             kNumBlocksAttribute = 7, kFirstAttribute = 8;

struct AttributeValue {
  double value = std::numeric_limits<double>::quiet_NaN();  // NaN = missing
  TimePoint fresh_until = TimePoint::max();                 // too old to count afterwards
};

// One entry of an engine's /v1/models; `parent` is the base model of an adapter.
struct ServedModel {
  std::string id, parent;
  friend bool operator==(const ServedModel&, const ServedModel&) = default;
};

// The gauges of one scrape (docs/reference/data.md). Plain values; copied into snapshots.
struct EndpointMetrics {
  double waiting = 0, running = 0;
  double kv_usage = 0;                 // 0..1
  int block_size = 0, num_blocks = 0;  // 0 = not reported
  std::vector<std::string> active_models, waiting_models;
  int max_active_models = 0;
  TimePoint updated{};  // of the last good scrape; epoch = never
  bool ever = false;
  std::vector<AttributeValue> attributes;  // by AttributeId, from kFirstAttribute on
  std::shared_ptr<const std::vector<ServedModel>> served_models;  // null = not known
  double process_start = 0;  // of the engine's process, seconds since the epoch; 0 = not said
  uint64_t page = 0;  // number of the page the gauges are from, by the EndpointStore; 0 = none
  // Sets an attribute from kFirstAttribute on; without effect for kNoAttribute.
  void SetAttribute(AttributeId id, double value);
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
  // "name" or "name/producer" → value, as extractors would have filled them (customMetrics,
  // GPUUtilization); what `metrics` holds goes there.
  std::map<std::string, double> attributes = {};
};

// The members of a pool; rebuilt only when one joins, leaves or is edited. Immutable. Whoever keeps
// it keeps the lives of its members, and so their slots: what is to outlast requests holds `shown`.
struct EndpointSet {
  std::vector<std::shared_ptr<const EndpointInfo>> infos;
  std::vector<std::shared_ptr<const EndpointLife>> lives;
  std::vector<uint32_t> slots;  // of the lives
  std::vector<uint8_t> roles;
  std::vector<std::string> names, host_ports;  // "ns/name", "ip:port"
  uint32_t max_slot = 0;                       // one above the largest slot
  std::shared_ptr<const EndpointSet> shown;    // the same without the lives; null = made by hand
  void Add(std::shared_ptr<const EndpointInfo> info, std::shared_ptr<const EndpointLife> life);
  // The same with a life that begins here.
  void Add(std::shared_ptr<const EndpointInfo> info, uint32_t slot);
  // A copy that holds no life.
  std::shared_ptr<const EndpointSet> WithoutLives() const;
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
  // By AttributeId from kFirstAttribute on, then endpoint; short where the last ones lack it.
  std::vector<std::vector<double>> attributes;
  size_t size() const { return set ? set->size() : 0; }
  const EndpointInfo& info(size_t i) const { return *set->infos[i]; }
  // NaN when the endpoint lacks the attribute or its value is too old.
  double Attribute(AttributeId id, size_t i) const;
  // Appends the metrics of the next endpoint of `set`; attributes not fresh at `now` are left out.
  void Add(std::shared_ptr<const EndpointMetrics> m, TimePoint now = TimePoint::min());
  // The same for an endpoint whose metrics are too old to count.
  void AddStale(const EndpointMetrics& m, TimePoint now = TimePoint::min());
};

}  // namespace llmd::sched
