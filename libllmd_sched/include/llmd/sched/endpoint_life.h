// One life of an endpoint, from its joining to its leaving. A label edit does not end it, nor a
// short absence of an address with requests on their way; a new process at the address does. What
// is counted for an endpoint is counted for its life, so that a successor starts from nothing.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "llmd/sched/ledger.h"

namespace llmd::sched {

// Of a life; never used twice in a process.
enum class EndpointId : uint64_t {};

// Small numbers for lives. One that was given back is handed out again only after Reuse, so that
// what is kept under it can be dropped first. Thread-safe.
class EndpointSlots {
 public:
  // The smallest one that is free.
  uint32_t Take();
  void GiveBack(uint32_t slot);
  // Those given back and not yet named here, each once.
  std::vector<uint32_t> TakeReturned();
  void Reuse(const std::vector<uint32_t>& slots);

 private:
  std::mutex mutex_;
  std::vector<uint8_t> used_;       // by slot; guarded by mutex_
  std::vector<uint32_t> returned_;  // guarded by mutex_
};

// Held by the pool while the endpoint is a member, by snapshots, and by the requests charged to it.
// Its slot goes back when the last of them lets go. Immutable but for its account.
class EndpointLife {
 public:
  // Of a set made by hand: the slot is the maker's affair.
  explicit EndpointLife(uint32_t slot);
  explicit EndpointLife(std::shared_ptr<EndpointSlots> slots);
  ~EndpointLife();
  EndpointLife(const EndpointLife&) = delete;
  EndpointLife& operator=(const EndpointLife&) = delete;

  EndpointId id() const { return id_; }
  // Index of per-endpoint state of plugins, unique among the lives that somebody holds.
  uint32_t slot() const { return slot_; }
  // What it has in flight.
  InFlightAccount& account() const { return account_; }

 private:
  mutable InFlightAccount account_;
  const std::shared_ptr<EndpointSlots> slots_;  // null = a slot of the maker's
  const EndpointId id_;
  const uint32_t slot_;
};

}  // namespace llmd::sched
