#include "llmd/sched/endpoint.h"

#include <algorithm>
#include <limits>

namespace llmd::sched {

uint8_t RolesOf(const EndpointInfo& info) {
  const auto it = info.labels.find(std::string(kRoleLabel));
  if (it == info.labels.end()) return kRoleUnlabelled;
  const std::string& role = it->second;
  if (role == "decode") return kRoleDecode;
  if (role == "prefill") return kRolePrefill;
  if (role == "encode") return kRoleEncode;
  if (role == "prefill-decode" || role == "both") return kRolePrefill | kRoleDecode;
  if (role == "encode-prefill") return kRoleEncode | kRolePrefill;
  if (role == "encode-prefill-decode") return kRoleEncode | kRolePrefill | kRoleDecode;
  return 0;
}

void EndpointSet::Add(std::shared_ptr<const EndpointInfo> info, uint32_t slot) {
  roles.push_back(RolesOf(*info));
  names.push_back(info->FullName());
  host_ports.push_back(info->HostPort());
  slots.push_back(slot);
  max_slot = std::max(max_slot, slot + 1);
  infos.push_back(std::move(info));
}

void Snapshot::Add(std::shared_ptr<const EndpointMetrics> m) {
  waiting.push_back(m->waiting);
  running.push_back(m->running);
  kv_usage.push_back(m->kv_usage);
  updated.push_back(m->ever ? m->updated : TimePoint());
  stale.push_back(0);
  metrics.push_back(std::move(m));
}

void Snapshot::AddStale(const EndpointMetrics& m) {
  auto unknown = std::make_shared<EndpointMetrics>();
  unknown->waiting = unknown->running = unknown->kv_usage =
      std::numeric_limits<double>::quiet_NaN();
  unknown->block_size = m.block_size;
  unknown->num_blocks = m.num_blocks;
  unknown->updated = m.updated;
  unknown->ever = m.ever;
  Add(std::move(unknown));
  stale.back() = 1;
}

}  // namespace llmd::sched
