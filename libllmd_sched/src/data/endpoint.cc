#include "llmd/sched/endpoint.h"

#include <algorithm>
#include <limits>

namespace llmd::sched {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

}  // namespace

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
  Add(std::move(info), std::make_shared<const EndpointLife>(slot));
}

void EndpointSet::Add(std::shared_ptr<const EndpointInfo> info,
                      std::shared_ptr<const EndpointLife> life) {
  roles.push_back(RolesOf(*info));
  names.push_back(info->FullName());
  host_ports.push_back(info->HostPort());
  slots.push_back(life->slot());
  max_slot = std::max(max_slot, life->slot() + 1);
  infos.push_back(std::move(info));
  lives.push_back(std::move(life));
}

std::shared_ptr<const EndpointSet> EndpointSet::WithoutLives() const {
  auto out = std::make_shared<EndpointSet>();
  out->infos = infos;
  out->slots = slots;
  out->roles = roles;
  out->names = names;
  out->host_ports = host_ports;
  out->max_slot = max_slot;
  return out;
}

void EndpointMetrics::SetAttribute(AttributeId id, double value) {
  if (id < kFirstAttribute) return;
  const size_t at = static_cast<size_t>(id - kFirstAttribute);
  if (attributes.size() <= at) attributes.resize(at + 1);
  attributes[at] = {.value = value};
}

double Snapshot::Attribute(AttributeId id, size_t i) const {
  const auto known = [](bool is, auto value) { return is ? static_cast<double>(value) : kNan; };
  switch (id) {
    case kWaitingAttribute:
      return waiting[i];
    case kRunningAttribute:
      return running[i];
    case kKvUsageAttribute:
      return kv_usage[i];
    case kMaxActiveModelsAttribute:
      return known(!stale[i], metrics[i]->max_active_models);
    case kActiveModelsAttribute:
      return known(!stale[i], metrics[i]->active_models.size());
    case kWaitingModelsAttribute:
      return known(!stale[i], metrics[i]->waiting_models.size());
    case kBlockSizeAttribute:
      return known(metrics[i]->block_size > 0, metrics[i]->block_size);
    case kNumBlocksAttribute:
      return known(metrics[i]->num_blocks > 0, metrics[i]->num_blocks);
    default:
      break;
  }
  const size_t column = static_cast<size_t>(id - kFirstAttribute);
  const bool has = column < attributes.size() && i < attributes[column].size();
  return has ? attributes[column][i] : kNan;
}

void Snapshot::Add(std::shared_ptr<const EndpointMetrics> m, TimePoint now) {
  if (attributes.size() < m->attributes.size()) attributes.resize(m->attributes.size());
  for (size_t a = 0; a < m->attributes.size(); ++a) {
    attributes[a].resize(metrics.size(), kNan);
    const AttributeValue& of = m->attributes[a];
    attributes[a].push_back(of.fresh_until < now ? kNan : of.value);
  }
  waiting.push_back(m->waiting);
  running.push_back(m->running);
  kv_usage.push_back(m->kv_usage);
  updated.push_back(m->ever ? m->updated : TimePoint());
  stale.push_back(0);
  metrics.push_back(std::move(m));
}

void Snapshot::AddStale(const EndpointMetrics& m, TimePoint now) {
  auto unknown = std::make_shared<EndpointMetrics>();
  unknown->waiting = unknown->running = unknown->kv_usage = kNan;
  unknown->block_size = m.block_size;
  unknown->num_blocks = m.num_blocks;
  unknown->updated = m.updated;
  unknown->ever = m.ever;
  unknown->page = m.page;
  unknown->attributes = m.attributes;
  unknown->served_models = m.served_models;
  Add(std::move(unknown), now);
  stale.back() = 1;
}

}  // namespace llmd::sched
