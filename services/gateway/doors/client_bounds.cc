#include "gateway/doors/client_bounds.h"

#include <algorithm>
#include <utility>

namespace llmd::doors {
namespace {

// Adds, unless that goes above `limit` (0 = none).
bool AddWithin(std::atomic<int64_t>& counter, int64_t amount, int64_t limit) {
  int64_t before = counter.load(std::memory_order_relaxed);
  do {
    if (limit > 0 && before + amount > limit) return false;
  } while (!counter.compare_exchange_weak(before, before + amount, std::memory_order_relaxed));
  return true;
}

}  // namespace

struct ClientShare::Slot {
  IpAddress client;
  Slot* next = nullptr;  // in a bucket or in the free list
  std::array<std::atomic<int64_t>, 3> held{};
};

ClientShare& ClientShare::operator=(ClientShare&& other) noexcept {
  if (this == &other) return *this;
  Close();
  bounds_ = std::exchange(other.bounds_, nullptr);
  slot_ = other.slot_;
  held_ = std::exchange(other.held_, {});
  return *this;
}

bool ClientShare::Take(Bound bound, int64_t bytes, Refusal& refusal) {
  if (bounds_ == nullptr || bytes <= 0) return true;
  if (!bounds_->Add(*slot_, bound, bytes, refusal)) return false;
  held_[static_cast<size_t>(bound)] += bytes;
  return true;
}

void ClientShare::GiveBack(Bound bound, int64_t bytes) {
  int64_t& held = held_[static_cast<size_t>(bound)];
  bytes = std::clamp<int64_t>(bytes, 0, held);
  if (bounds_ == nullptr || bytes == 0) return;
  held -= bytes;
  bounds_->Subtract(*slot_, bound, bytes);
}

void ClientShare::Close() {
  if (bounds_ == nullptr) return;
  GiveBack(Bound::kHeaderBytes, held_[static_cast<size_t>(Bound::kHeaderBytes)]);
  GiveBack(Bound::kBodyBytes, held_[static_cast<size_t>(Bound::kBodyBytes)]);
  bounds_->Leave(slot_);
  bounds_ = nullptr;
}

ClientBounds::ClientBounds(BoundLimits each, BoundLimits total, DoorMetrics& metrics)
    : each_(each), limits_(total), metrics_(metrics) {}
ClientBounds::~ClientBounds() = default;

ClientShare ClientBounds::Open(const IpAddress& client, Refusal& refusal) {
  ClientShare out;
  constexpr auto kIndex = static_cast<size_t>(Bound::kConnections);
  if (!AddWithin(total_[kIndex], 1, limits_.connections)) {
    Refuse(Bound::kConnections, true, refusal);
    return out;
  }
  const IpAddress one = client.Client();
  const uint64_t hash = one.Hash();
  Slot* const slot = Enter(stripes_[hash % kStripes], one, hash);
  if (slot == nullptr) {
    total_[kIndex].fetch_sub(1, std::memory_order_relaxed);
    Refuse(Bound::kConnections, false, refusal);
    return out;
  }
  out.bounds_ = this;
  out.slot_ = slot;
  out.held_[kIndex] = 1;
  return out;
}

ClientBounds::Slot* ClientBounds::Fresh(Stripe& stripe) {
  if (stripe.free == nullptr) {
    Slot* const chunk = stripe.chunks.emplace_back(std::make_unique<Slot[]>(kChunk)).get();
    for (size_t i = 0; i < kChunk; ++i) chunk[i].next = i + 1 < kChunk ? &chunk[i + 1] : nullptr;
    stripe.free = chunk;
  }
  ++stripe.used;
  return std::exchange(stripe.free, stripe.free->next);
}

ClientBounds::Slot* ClientBounds::Enter(Stripe& stripe, const IpAddress& client, uint64_t hash) {
  constexpr auto kIndex = static_cast<size_t>(Bound::kConnections);
  const std::lock_guard lock(stripe.mutex);
  Slot*& bucket = stripe.buckets[hash / kStripes % kBuckets];
  Slot* slot = bucket;
  while (slot != nullptr && slot->client != client) slot = slot->next;
  if (slot == nullptr) {
    slot = Fresh(stripe);
    slot->client = client;
    slot->next = std::exchange(bucket, slot);
  }
  return AddWithin(slot->held[kIndex], 1, each_.connections) ? slot : nullptr;
}

void ClientBounds::Leave(Slot* slot) {
  constexpr auto kIndex = static_cast<size_t>(Bound::kConnections);
  // The client does not change while this connection counts.
  const uint64_t hash = slot->client.Hash();
  Stripe& stripe = stripes_[hash % kStripes];
  {
    const std::lock_guard lock(stripe.mutex);
    if (slot->held[kIndex].fetch_sub(1, std::memory_order_relaxed) == 1) {
      Slot** link = &stripe.buckets[hash / kStripes % kBuckets];
      while (*link != slot) link = &(*link)->next;
      *link = slot->next;
      slot->next = std::exchange(stripe.free, slot);
      --stripe.used;
    }
  }
  total_[kIndex].fetch_sub(1, std::memory_order_relaxed);
}

bool ClientBounds::Add(Slot& slot, Bound bound, int64_t amount, Refusal& refusal) {
  const auto i = static_cast<size_t>(bound);
  if (!AddWithin(total_[i], amount, limits_.Of(bound))) {
    Refuse(bound, true, refusal);
    return false;
  }
  if (AddWithin(slot.held[i], amount, each_.Of(bound))) return true;
  total_[i].fetch_sub(amount, std::memory_order_relaxed);
  Refuse(bound, false, refusal);
  return false;
}

void ClientBounds::Subtract(Slot& slot, Bound bound, int64_t amount) {
  const auto i = static_cast<size_t>(bound);
  slot.held[i].fetch_sub(amount, std::memory_order_relaxed);
  total_[i].fetch_sub(amount, std::memory_order_relaxed);
}

void ClientBounds::Refuse(Bound bound, bool total, Refusal& refusal) {
  metrics_.Bounded(bound, total);
  static constexpr std::array<std::string_view, 3> kEach = {
      "this client has too many connections open (--max-connections-per-client)",
      "this client has too many bytes of headers under way (--max-header-bytes-per-client)",
      "this client has too many bytes of bodies under way (--max-body-bytes-per-client)"};
  static constexpr std::array<std::string_view, 3> kAll = {
      "there are too many connections (--max-connections)",
      "too many bytes of headers are under way (--max-header-bytes-in-flight)",
      "too many bytes of bodies are under way (--max-body-bytes-in-flight)"};
  const auto i = static_cast<size_t>(bound);
  refusal.Set(total ? 503 : 429, total ? "overloaded" : "client_bound_exceeded",
              total ? kAll[i] : kEach[i]);
  refusal.retry_after_s = 1;
}

size_t ClientBounds::clients() const {
  size_t out = 0;
  for (const Stripe& stripe : stripes_) {
    const std::lock_guard lock(stripe.mutex);
    out += stripe.used;
  }
  return out;
}

}  // namespace llmd::doors
