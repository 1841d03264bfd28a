// How much one client, and all together, may hold at a time: connections, bytes of heads being
// read, bytes of bodies that are in memory. Counters only; nothing is queued.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "gateway/doors/door_metrics.h"
#include "gateway/doors/ip_address.h"
#include "gateway/doors/refusal.h"

namespace llmd::doors {

struct BoundLimits {
  int64_t connections = 0, header_bytes = 0, body_bytes = 0;  // 0 = no bound
  int64_t Of(Bound bound) const {
    return bound == Bound::kConnections   ? connections
           : bound == Bound::kHeaderBytes ? header_bytes
                                          : body_bytes;
  }
};

class ClientBounds;

// What one connection holds. Moves; what it holds is given back when it ends. Thread-compatible.
class ClientShare {
 public:
  ClientShare() = default;
  ClientShare(ClientShare&& other) noexcept { *this = std::move(other); }
  ClientShare& operator=(ClientShare&& other) noexcept;
  ~ClientShare() { Close(); }

  // Whether the connection was let in.
  bool open() const { return bounds_ != nullptr; }
  // Of heads or bodies: takes so many bytes more, or fills `refusal` (429 for the client's bound,
  // 503 for that of all) and takes none.
  bool Take(Bound bound, int64_t bytes, Refusal& refusal);
  // At most what was taken.
  void GiveBack(Bound bound, int64_t bytes);
  void Close();

 private:
  friend class ClientBounds;
  struct Slot;
  ClientBounds* bounds_ = nullptr;
  Slot* slot_ = nullptr;
  std::array<int64_t, 3> held_{};
};

// Thread-safe. Clients stand in a table that grows with those that are connected at one time, so
// that the bound of all connections bounds it; it allocates nothing for a number that was there
// before. What counts as one client: IpAddress::Client.
class ClientBounds {
 public:
  // `total.connections` is at least 1. `metrics` outlives this, and this all shares.
  ClientBounds(BoundLimits each, BoundLimits total, DoorMetrics& metrics);
  ~ClientBounds();

  // A connection of that client: an open share, or a filled `refusal` (503 or 429; the connection
  // is to be answered so and closed, or just closed).
  ClientShare Open(const IpAddress& client, Refusal& refusal);
  int64_t Total(Bound bound) const {
    return total_[static_cast<size_t>(bound)].load(std::memory_order_relaxed);
  }
  size_t clients() const;

 private:
  friend class ClientShare;
  using Slot = ClientShare::Slot;
  static constexpr size_t kStripes = 16, kBuckets = 1024, kChunk = 64;
  // A part of the table with a lock of its own. All guarded by mutex, but for the counts in slots.
  struct Stripe {
    mutable std::mutex mutex;
    std::array<Slot*, kBuckets> buckets{};
    std::vector<std::unique_ptr<Slot[]>> chunks;
    Slot* free = nullptr;
    size_t used = 0;
  };

  // The client's slot with one connection more, or null when it has its fill.
  Slot* Enter(Stripe& stripe, const IpAddress& client, uint64_t hash);
  void Leave(Slot* slot);
  static Slot* Fresh(Stripe& stripe);
  bool Add(Slot& slot, Bound bound, int64_t amount, Refusal& refusal);
  void Subtract(Slot& slot, Bound bound, int64_t amount);
  void Refuse(Bound bound, bool total, Refusal& refusal);

  const BoundLimits each_, limits_;
  DoorMetrics& metrics_;
  std::array<std::atomic<int64_t>, 3> total_{};
  std::array<Stripe, kStripes> stripes_;
};

}  // namespace llmd::doors
