// Requests sent to an endpoint that none of its scrapes can have shown yet. Without them a gate
// that opens would let a whole backlog through before the next scrape closes it.
#pragma once

#include <cstdint>
#include <mutex>
#include <vector>

#include "llmd/clock.h"

namespace llmd::sched {

// Thread-safe.
class UnseenRequests {
 public:
  // A request leaves for the endpoint; the mark is for Answered.
  uint64_t Sent(uint32_t slot) {
    std::lock_guard lock(mutex_);
    Slot& s = Of(slot);
    ++s.count;
    return s.scrape;
  }
  // Its answer began or ended: it does not wait any more.
  void Answered(uint32_t slot, uint64_t mark) {
    std::lock_guard lock(mutex_);
    Slot& s = Of(slot);
    if (s.scrape == mark && s.count > 0) --s.count;
  }
  // How many were sent after the scrape of that time and not answered.
  double Count(uint32_t slot, TimePoint scraped) {
    std::lock_guard lock(mutex_);
    Slot& s = Of(slot);
    if (scraped > s.scraped) s = {scraped, s.scrape + 1, 0};
    return static_cast<double>(s.count);
  }

 private:
  struct Slot {
    TimePoint scraped{};
    uint64_t scrape = 0;  // counts scrapes seen
    uint64_t count = 0;
  };
  Slot& Of(uint32_t slot) {
    if (slot >= slots_.size()) slots_.resize(slot + 1);
    return slots_[slot];
  }
  std::mutex mutex_;
  std::vector<Slot> slots_;  // guarded by mutex_
};

}  // namespace llmd::sched
