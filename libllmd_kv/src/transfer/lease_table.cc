#include "transfer/lease_table.h"

#include <algorithm>

namespace llmd::kv {
namespace {
constexpr size_t kRememberedEnds = 256;
}  // namespace

StatusOr<uint64_t> Lease::GenerationOf(int32_t block) const {
  const auto at =
      std::lower_bound(blocks.begin(), blocks.end(), std::pair<int32_t, uint64_t>{block, 0});
  if (at != blocks.end() && at->first == block) return at->second;
  return OutOfRange("block " + std::to_string(block) + " is not part of the lease");
}

LeaseTable::LeaseTable(const Region& region, size_t max_leases, Duration lease,
                       Agent::ReleaseFn on_release, MetricsRegistry& metrics, const Clock& clock)
    : region_(region),
      max_leases_(max_leases),
      lease_(lease),
      on_release_(std::move(on_release)),
      clock_(clock),
      gauge_(metrics.AddGauge("llmd_kv_leases", "Requests whose blocks are pinned for a reader.")),
      expirations_(metrics.AddCounter("llmd_kv_lease_expirations_total",
                                      "Leases that ended because no reader came.")) {}

Status LeaseTable::Lend(const std::string& request_id, const std::vector<int32_t>& blocks) {
  auto lease = std::make_shared<Lease>();
  lease->blocks.reserve(blocks.size());
  for (int32_t block : blocks) {
    if (block < 0 || block >= region_.num_blocks()) {
      return OutOfRange("lease of request '" + request_id + "': block " + std::to_string(block) +
                        " of " + std::to_string(region_.num_blocks()));
    }
    lease->blocks.emplace_back(block, region_.Generation(block));
  }
  std::sort(lease->blocks.begin(), lease->blocks.end());
  const std::lock_guard lock(mutex_);
  if (leases_.size() >= max_leases_) {
    return ResourceExhausted("lease of request '" + request_id +
                             "': " + std::to_string(max_leases_) + " are out already");
  }
  const auto [at, inserted] = leases_.try_emplace(request_id);
  if (!inserted) return AlreadyExists("lease of request '" + request_id + "' exists already");
  at->second = {std::move(lease), deadlines_.emplace(clock_.Now() + lease_, request_id)};
  gauge_.Set(static_cast<double>(leases_.size()));
  return OkStatus();
}

void LeaseTable::Revoke(const std::string& request_id) {
  const std::lock_guard lock(mutex_);
  Remove(request_id, "was revoked");
}

Status LeaseTable::Finish(const std::string& request_id, bool read) {
  {
    const std::lock_guard lock(mutex_);
    if (!Remove(request_id, read ? "was read before" : "was released unread"))
      return Missing(request_id);
  }
  if (on_release_) on_release_(request_id, read);
  return OkStatus();
}

StatusOr<std::shared_ptr<const Lease>> LeaseTable::Find(const std::string& request_id) const {
  const std::lock_guard lock(mutex_);
  const auto at = leases_.find(request_id);
  if (at == leases_.end()) return Missing(request_id);
  return at->second.lease;
}

void LeaseTable::Expire() {
  std::vector<std::string> over;
  {
    const std::lock_guard lock(mutex_);
    const TimePoint now = clock_.Now();
    while (!deadlines_.empty() && deadlines_.begin()->first <= now) {
      over.push_back(deadlines_.begin()->second);
      Remove(over.back(), "expired");
    }
  }
  for (const std::string& request_id : over) {
    expirations_.Add();
    if (on_release_) on_release_(request_id, false);
  }
}

size_t LeaseTable::size() const {
  const std::lock_guard lock(mutex_);
  return leases_.size();
}

bool LeaseTable::Remove(const std::string& request_id, const char* how) {
  const auto at = leases_.find(request_id);
  if (at == leases_.end()) return false;
  ended_.emplace_back(request_id, how);
  if (ended_.size() > kRememberedEnds) ended_.pop_front();
  // The map's own key may be what `request_id` refers to through the deadline: it goes last.
  deadlines_.erase(at->second.deadline);
  leases_.erase(at);
  gauge_.Set(static_cast<double>(leases_.size()));
  return true;
}

Status LeaseTable::Missing(const std::string& request_id) const {
  const auto at = std::find_if(ended_.rbegin(), ended_.rend(),
                               [&](const auto& end) { return end.first == request_id; });
  return NotFound("lease of request '" + request_id + "' " +
                  (at == ended_.rend() ? "does not exist" : at->second));
}

}  // namespace llmd::kv
