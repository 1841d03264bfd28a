#include "llmd/kv/index.h"

#include "index/directory.h"

namespace llmd::kv {

Candidates::Candidates(std::span<const EndpointId> endpoints) : size_(endpoints.size()) {
  for (uint32_t i = 0; i < endpoints.size(); ++i) {
    if (endpoints[i] == EndpointId::kNone) continue;
    const size_t index = IndexOf(endpoints[i]);
    if (index >= places_.size()) places_.resize(index + 1);
    Place& place = places_[index];
    if (place.endpoint == endpoints[i]) {
      repeated_.emplace_back(place.place, i);
    } else {
      place = {endpoints[i], i};
    }
  }
}

Index::Index(const IndexOptions& options)
    : options_(options), directory_(std::make_unique<Directory>(options)) {}

Index::~Index() = default;

StatusOr<EndpointId> Index::AddEndpoint(std::string_view name) {
  return directory_->AddEndpoint(name);
}

EndpointId Index::FindEndpoint(std::string_view name) const {
  return directory_->FindEndpoint(name);
}

std::string Index::EndpointName(EndpointId endpoint) const {
  return directory_->EndpointName(endpoint);
}

void Index::RemoveEndpoint(EndpointId endpoint) {
  if (!directory_->Has(endpoint)) return;
  DoClear(endpoint);
  DoForget(endpoint);
  directory_->RemoveEndpoint(endpoint);
}

StatusOr<TierId> Index::AddTier(std::string_view name) {
  return directory_->AddTier(name);
}

std::string Index::TierName(TierId tier) const {
  return directory_->TierName(tier);
}

StatusOr<NamespaceId> Index::AddNamespace(const IndexNamespace& ns) {
  return directory_->AddNamespace(ns);
}

Status Index::Enter(Holder holder, uint64_t epoch) {
  const auto known = directory_->Position(holder.endpoint);
  if (!known)
    return InvalidArgument("index: endpoint " +
                           std::to_string(static_cast<uint32_t>(holder.endpoint)) +
                           " is not known");
  if (holder.tier == TierId::kSpeculative || epoch == known->epoch) return OkStatus();
  if (epoch < known->epoch)
    return FailedPrecondition("index: endpoint '" + EndpointName(holder.endpoint) + "': epoch " +
                              std::to_string(epoch) + " is over, " + std::to_string(known->epoch) +
                              " has begun");
  if (known->epoch != 0) DoClear(holder.endpoint);
  directory_->NotePosition(holder.endpoint, {epoch, 0});
  return OkStatus();
}

Status Index::Add(const StoredBlocks& blocks, Holder holder, uint64_t epoch) {
  if (blocks.keys.empty()) return InvalidArgument("index: expected keys to add");
  if (blocks.parent && blocks.engine_keys.empty())
    return InvalidArgument("index: blocks after a parent need engine keys");
  LLMD_RETURN_IF_ERROR(Enter(holder, epoch));
  const size_t cap = options_.max_blocks_per_endpoint;
  if (cap != 0 && BlocksOf(holder.endpoint) >= cap)
    return ResourceExhausted("index: endpoint '" + EndpointName(holder.endpoint) + "' holds " +
                             std::to_string(cap) + " blocks, the most it may: events were lost");
  return DoAdd(blocks, holder);
}

Status Index::Evict(NamespaceId ns, std::span<const uint64_t> engine_keys, Holder holder,
                    uint64_t epoch) {
  LLMD_RETURN_IF_ERROR(Enter(holder, epoch));
  DoEvict(ns, engine_keys, holder);
  return OkStatus();
}

Status Index::EvictChain(NamespaceId ns, std::span<const uint64_t> keys, size_t from,
                         Holder holder) {
  if (!directory_->Has(holder.endpoint)) return Enter(holder, 0);
  if (from < keys.size()) DoEvictChain(ns, keys, from, holder);
  return OkStatus();
}

Status Index::Clear(EndpointId endpoint) {
  if (!directory_->Has(endpoint)) return Enter({endpoint, TierId::kSpeculative}, 0);
  DoClear(endpoint);
  return OkStatus();
}

SourcePosition Index::Position(EndpointId endpoint) const {
  return directory_->Position(endpoint).value_or(SourcePosition());
}

void Index::NoteSequence(EndpointId endpoint, uint64_t sequence) {
  SourcePosition position = Position(endpoint);
  position.sequence = sequence;
  directory_->NotePosition(endpoint, position);
}

Status Index::Save(const Sink&) const {
  return Unimplemented("index: this backend keeps no snapshots; RunIndex does");
}

Status Index::Restore(const Source&) {
  return Unimplemented("index: this backend keeps no snapshots; RunIndex does");
}

}  // namespace llmd::kv
