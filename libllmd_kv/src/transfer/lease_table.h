// The lender's leases: which blocks are pinned for which reader, with the generation each had when
// it was lent, and until when. Thread-safe; callbacks run without the lock.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include <absl/container/flat_hash_map.h>

#include "llmd/clock.h"
#include "llmd/kv/transfer.h"
#include "llmd/metrics.h"
#include "llmd/status.h"

namespace llmd::kv {

struct Lease {
  // Sorted by block: (block, its generation when lent).
  std::vector<std::pair<int32_t, uint64_t>> blocks;
  // OUT_OF_RANGE naming the block when it is not part of the lease.
  StatusOr<uint64_t> GenerationOf(int32_t block) const;
};

class LeaseTable {
 public:
  LeaseTable(const Region& region, size_t max_leases, Duration lease, Agent::ReleaseFn on_release,
             MetricsRegistry& metrics, const Clock& clock);

  Status Lend(const std::string& request_id, const std::vector<int32_t>& blocks);
  void Revoke(const std::string& request_id);
  // The reader is done, or (`read` false) will never come; tells the owner. NOT_FOUND as Find.
  Status Finish(const std::string& request_id, bool read);
  // NOT_FOUND saying whether the lease was read, expired, was revoked or never existed, as far as
  // it is remembered.
  StatusOr<std::shared_ptr<const Lease>> Find(const std::string& request_id) const;
  void Expire();
  size_t size() const;

 private:
  using Deadlines = std::multimap<TimePoint, std::string>;
  struct Entry {
    std::shared_ptr<const Lease> lease;
    Deadlines::iterator deadline;
  };
  // Under the lock. False when there is no such lease.
  bool Remove(const std::string& request_id, const char* how);
  Status Missing(const std::string& request_id) const;

  const Region& region_;
  const size_t max_leases_;
  const Duration lease_;
  const Agent::ReleaseFn on_release_;
  const Clock& clock_;
  Gauge& gauge_;
  Counter& expirations_;

  mutable std::mutex mutex_;
  absl::flat_hash_map<std::string, Entry> leases_;
  Deadlines deadlines_;
  std::deque<std::pair<std::string, const char*>>
      ended_;  // the last ones, so that late readers learn why
};

}  // namespace llmd::kv
