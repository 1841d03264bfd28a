// Our own in-flight counts per endpoint, readable outside a request.
#pragma once

#include <atomic>
#include <deque>
#include <mutex>
#include <shared_mutex>
#include <vector>

#include "llmd/sched/plugin.h"

namespace llmd::sched {

class InFlightCounts : public virtual Plugin {
 public:
  virtual double Requests(uint32_t slot) const = 0;
  virtual double Tokens(uint32_t slot) const = 0;
};

// Requests and tokens by slot. Thread-safe; adding allocates only for a slot never seen before.
class SlotCounters {
 public:
  void Add(uint32_t slot, double requests, double tokens) {
    Cell& cell = CellOf(slot);
    cell.requests.fetch_add(requests, std::memory_order_relaxed);
    cell.tokens.fetch_add(tokens, std::memory_order_relaxed);
  }
  double Requests(uint32_t slot) const {
    std::shared_lock lock(mutex_);
    return slot < cells_.size() ? cells_[slot].requests.load(std::memory_order_relaxed) : 0;
  }
  double Tokens(uint32_t slot) const {
    std::shared_lock lock(mutex_);
    return slot < cells_.size() ? cells_[slot].tokens.load(std::memory_order_relaxed) : 0;
  }
  // Of all `slots`: requests into out.per_endpoint, tokens into out.second (sized by the caller).
  void ReadAll(const std::vector<uint32_t>& slots, Attribute& out) const {
    std::shared_lock lock(mutex_);
    for (size_t i = 0; i < slots.size(); ++i) {
      const bool known = slots[i] < cells_.size();
      out.per_endpoint[i] = known ? cells_[slots[i]].requests.load(std::memory_order_relaxed) : 0;
      out.second[i] = known ? cells_[slots[i]].tokens.load(std::memory_order_relaxed) : 0;
    }
  }

 private:
  struct Cell {
    std::atomic<double> requests{0}, tokens{0};
  };
  Cell& CellOf(uint32_t slot) {
    {
      std::shared_lock lock(mutex_);
      if (slot < cells_.size()) return cells_[slot];
    }
    std::unique_lock lock(mutex_);
    while (cells_.size() <= slot) cells_.emplace_back();
    return cells_[slot];
  }
  mutable std::shared_mutex mutex_;
  std::deque<Cell> cells_;  // never move; growth guarded by mutex_
};

}  // namespace llmd::sched
