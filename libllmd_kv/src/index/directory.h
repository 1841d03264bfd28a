// The names of an index: endpoints with their epochs, tiers, namespaces.
#pragma once

#include <atomic>
#include <map>
#include <shared_mutex>

#include "llmd/kv/index.h"

namespace llmd::kv {

constexpr uint32_t IndexOf(EndpointId endpoint) {
  return static_cast<uint32_t>(endpoint) & (kMaxEndpoints - 1);
}

// What the backends see of a namespace: where keys mean the same, and the group.
struct Space {
  uint16_t number = 0;
  int32_t group = -1;
};

// Thread-safe.
class Index::Directory {
 public:
  explicit Directory(const IndexOptions& options);

  StatusOr<EndpointId> AddEndpoint(std::string_view name);
  EndpointId FindEndpoint(std::string_view name) const;
  std::string EndpointName(EndpointId endpoint) const;
  bool Has(EndpointId endpoint) const;
  void RemoveEndpoint(EndpointId endpoint);
  StatusOr<TierId> AddTier(std::string_view name);
  std::string TierName(TierId tier) const;
  StatusOr<NamespaceId> AddNamespace(const IndexNamespace& ns);
  Space SpaceOf(NamespaceId ns) const;
  // The same number for readers that take no lock; kNoSpace when unknown.
  static constexpr uint16_t kNoSpace = UINT16_MAX;
  uint16_t SpaceNumberOf(NamespaceId ns) const {
    const auto number = static_cast<size_t>(ns);
    if (number >= kMaxNamespaces) return kNoSpace;
    return static_cast<uint16_t>(space_of_[number].load(std::memory_order_acquire) - 1);
  }

  std::optional<SourcePosition> Position(EndpointId endpoint) const;
  void NotePosition(EndpointId endpoint, SourcePosition position);
  // By the tiers that hold a block, one bit each: the best weight.
  const std::array<double, 1 << kMaxTiers>& weights() const { return weights_; }

  struct Source {
    std::string name;
    EndpointId id;
    SourcePosition position;
  };
  std::vector<Source> Sources() const;
  std::vector<std::string> Tiers() const;
  std::vector<IndexNamespace> Namespaces() const;

 private:
  struct Endpoint {
    std::string name;
    EndpointId id = EndpointId::kNone;  // kNone = free
    uint32_t life = 0;
    SourcePosition position;
  };
  const Endpoint* Find(EndpointId endpoint) const;  // null = unknown

  mutable std::shared_mutex mutex_;
  std::vector<Endpoint> endpoints_;  // guarded by mutex_, as all below
  std::vector<uint32_t> free_;       // oldest first from free_head_ on
  size_t free_head_ = 0;
  std::map<std::string, EndpointId, std::less<>> ids_;
  std::vector<std::string> tiers_ = {""};
  std::vector<IndexNamespace> namespaces_;
  std::vector<Space> spaces_;
  std::map<IndexNamespace, NamespaceId> numbers_;
  std::map<IndexNamespace, uint16_t> space_numbers_;  // with group -1
  std::array<double, 1 << kMaxTiers> weights_;
  std::array<std::atomic<uint16_t>, kMaxNamespaces>
      space_of_{};  // one more than the space's number
};

}  // namespace llmd::kv
