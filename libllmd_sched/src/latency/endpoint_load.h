// What this picker has running on each endpoint, by slot: requests, tokens of prompts still being
// computed, tokens of answers being decoded, and the strictest TPOT they were promised.
#pragma once

#include <atomic>
#include <deque>
#include <limits>
#include <mutex>
#include <shared_mutex>
#include <vector>

namespace llmd::sched::latency {

// Thread-safe. Allocates only for a slot, or more requests on one, than ever before.
class EndpointLoads {
 public:
  struct Load {
    double dispatched = 0, prefill_tokens = 0, decode_tokens = 0;
    double tightest_tpot_ms = std::numeric_limits<double>::infinity();
  };
  void Add(uint32_t slot, double dispatched, double prefill_tokens, double decode_tokens);
  void AddSlo(uint32_t slot, double tpot_ms);
  void RemoveSlo(uint32_t slot, double tpot_ms);
  Load Of(uint32_t slot) const {
    std::shared_lock lock(mutex_);
    return slot < cells_.size() ? ReadCell(cells_[slot]) : Load();
  }
  // read(i, load of slots[i]) for each, in order.
  template <typename F>
  void ForEach(const std::vector<uint32_t>& slots, F read) const {
    std::shared_lock lock(mutex_);
    for (size_t i = 0; i < slots.size(); ++i)
      read(i, slots[i] < cells_.size() ? ReadCell(cells_[slots[i]]) : Load());
  }

 private:
  struct Cell {
    std::atomic<double> dispatched{0}, prefill_tokens{0}, decode_tokens{0};
    std::atomic<double> tightest{std::numeric_limits<double>::infinity()};
    std::mutex mutex;
    std::vector<double> slos;  // guarded by mutex
  };
  static Load ReadCell(const Cell& cell) {
    constexpr auto kRelaxed = std::memory_order_relaxed;
    return {cell.dispatched.load(kRelaxed), cell.prefill_tokens.load(kRelaxed),
            cell.decode_tokens.load(kRelaxed), cell.tightest.load(kRelaxed)};
  }
  Cell& CellOf(uint32_t slot);

  mutable std::shared_mutex mutex_;
  std::deque<Cell> cells_;  // never move; growth guarded by mutex_
};

}  // namespace llmd::sched::latency
