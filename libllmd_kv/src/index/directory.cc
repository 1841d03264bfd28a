#include "index/directory.h"

#include <algorithm>
#include <mutex>

namespace llmd::kv {
namespace {

constexpr uint32_t kLives = UINT32_MAX / kMaxEndpoints;

}  // namespace

Index::Directory::Directory(const IndexOptions& options) {
  std::array<double, kMaxTiers> of_tier;
  of_tier.fill(1);
  for (const auto& [name, weight] : options.tier_weights) {
    if (const auto tier = AddTier(name); tier.ok()) of_tier[static_cast<size_t>(*tier)] = weight;
  }
  weights_[0] = 0;
  for (size_t mask = 1; mask < weights_.size(); ++mask) {
    double best = 0;
    for (size_t tier = 0; tier < kMaxTiers; ++tier)
      if ((mask >> tier & 1) != 0) best = std::max(best, of_tier[tier]);
    weights_[mask] = best;
  }
}

const Index::Directory::Endpoint* Index::Directory::Find(EndpointId endpoint) const {
  const size_t index = IndexOf(endpoint);
  if (endpoint == EndpointId::kNone || index >= endpoints_.size()) return nullptr;
  return endpoints_[index].id == endpoint ? &endpoints_[index] : nullptr;
}

StatusOr<EndpointId> Index::Directory::AddEndpoint(std::string_view name) {
  std::unique_lock lock(mutex_);
  if (const auto it = ids_.find(name); it != ids_.end()) return it->second;
  size_t index = endpoints_.size();
  // The last number would make the id kNone in its last life.
  if (index < kMaxEndpoints - 1) {
    if (free_.size() - free_head_ > 64) {  // the oldest of many: an id comes again late
      index = free_[free_head_++];
    } else {
      endpoints_.emplace_back();
    }
  } else if (free_head_ < free_.size()) {
    index = free_[free_head_++];
  } else {
    return ResourceExhausted("index: endpoint '" + std::string(name) + "': there are " +
                             std::to_string(ids_.size()) + " already, the most it takes");
  }
  if (free_head_ > 4096) {
    free_.erase(free_.begin(), free_.begin() + static_cast<ptrdiff_t>(free_head_));
    free_head_ = 0;
  }
  Endpoint& endpoint = endpoints_[index];
  endpoint.life = (endpoint.life + 1) % kLives;
  endpoint.id = static_cast<EndpointId>(endpoint.life * kMaxEndpoints + index);
  endpoint.name = name;
  endpoint.position = {};
  ids_.emplace(name, endpoint.id);
  return endpoint.id;
}

EndpointId Index::Directory::FindEndpoint(std::string_view name) const {
  std::shared_lock lock(mutex_);
  const auto it = ids_.find(name);
  return it == ids_.end() ? EndpointId::kNone : it->second;
}

std::string Index::Directory::EndpointName(EndpointId endpoint) const {
  std::shared_lock lock(mutex_);
  const Endpoint* found = Find(endpoint);
  return found == nullptr ? std::string() : found->name;
}

bool Index::Directory::Has(EndpointId endpoint) const {
  std::shared_lock lock(mutex_);
  return Find(endpoint) != nullptr;
}

void Index::Directory::RemoveEndpoint(EndpointId endpoint) {
  std::unique_lock lock(mutex_);
  if (Find(endpoint) == nullptr) return;
  Endpoint& gone = endpoints_[IndexOf(endpoint)];
  ids_.erase(gone.name);
  gone.id = EndpointId::kNone;
  gone.name.clear();
  free_.push_back(IndexOf(endpoint));
}

StatusOr<TierId> Index::Directory::AddTier(std::string_view name) {
  std::unique_lock lock(mutex_);
  const auto it = std::ranges::find(tiers_, name);
  if (it != tiers_.end()) return static_cast<TierId>(it - tiers_.begin());
  if (tiers_.size() == kMaxTiers)
    return ResourceExhausted("index: tier '" + std::string(name) + "': there are " +
                             std::to_string(kMaxTiers - 1) + " already, the most it takes");
  tiers_.emplace_back(name);
  return static_cast<TierId>(tiers_.size() - 1);
}

std::string Index::Directory::TierName(TierId tier) const {
  std::shared_lock lock(mutex_);
  const auto number = static_cast<size_t>(tier);
  return number < tiers_.size() ? tiers_[number] : std::string();
}

StatusOr<NamespaceId> Index::Directory::AddNamespace(const IndexNamespace& ns) {
  std::unique_lock lock(mutex_);
  if (const auto it = numbers_.find(ns); it != numbers_.end()) return it->second;
  if (namespaces_.size() == kMaxNamespaces)
    return ResourceExhausted("index: model '" + ns.model + "', adapter '" + ns.lora +
                             "': there are " + std::to_string(kMaxNamespaces) +
                             " namespaces already, the most it takes");
  IndexNamespace anywhere = ns;
  anywhere.group = -1;
  const auto space =
      space_numbers_.emplace(anywhere, static_cast<uint16_t>(space_numbers_.size())).first->second;
  const auto number = static_cast<NamespaceId>(namespaces_.size());
  namespaces_.push_back(ns);
  spaces_.push_back({space, ns.group});
  numbers_.emplace(ns, number);
  space_of_[static_cast<size_t>(number)].store(space + 1, std::memory_order_release);
  return number;
}

Space Index::Directory::SpaceOf(NamespaceId ns) const {
  std::shared_lock lock(mutex_);
  const auto number = static_cast<size_t>(ns);
  LLMD_CHECK(number < spaces_.size());
  return spaces_[number];
}

std::optional<SourcePosition> Index::Directory::Position(EndpointId endpoint) const {
  std::shared_lock lock(mutex_);
  const Endpoint* found = Find(endpoint);
  if (found == nullptr) return std::nullopt;
  return found->position;
}

void Index::Directory::NotePosition(EndpointId endpoint, SourcePosition position) {
  std::unique_lock lock(mutex_);
  if (Find(endpoint) != nullptr) endpoints_[IndexOf(endpoint)].position = position;
}

std::vector<Index::Directory::Source> Index::Directory::Sources() const {
  std::shared_lock lock(mutex_);
  std::vector<Source> out;
  for (const Endpoint& e : endpoints_)
    if (e.id != EndpointId::kNone) out.push_back({e.name, e.id, e.position});
  return out;
}

std::vector<std::string> Index::Directory::Tiers() const {
  std::shared_lock lock(mutex_);
  return tiers_;
}

std::vector<IndexNamespace> Index::Directory::Namespaces() const {
  std::shared_lock lock(mutex_);
  return namespaces_;
}

}  // namespace llmd::kv
