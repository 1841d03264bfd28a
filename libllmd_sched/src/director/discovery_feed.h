// The line from one discovery to the pool. Closed lines hold back: a discovery that is being
// started must not touch the pool before it is known to work, and one that was replaced not at all.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "llmd/sched/discovery.h"

namespace llmd::sched {

// Thread-safe; updates of one discovery come one at a time.
class DiscoveryFeed {
 public:
  using Policy = std::shared_ptr<const PoolPolicy>;
  // `apply` runs without the lock, each time with the newest state of both.
  explicit DiscoveryFeed(std::function<void(std::vector<EndpointInfo>, Policy)> apply)
      : apply_(std::move(apply)) {}

  void OnPolicy(Policy policy);
  void OnEndpoints(std::vector<EndpointInfo> endpoints);
  // Passes on what was held back, then everything as it comes.
  void Open();
  // Drops everything from now on.
  void Close();

 private:
  const std::function<void(std::vector<EndpointInfo>, Policy)> apply_;
  std::mutex mutex_;
  enum { kHolding, kOpen, kClosed } state_ = kHolding;  // guarded by mutex_
  Policy policy_;                                       // guarded by mutex_
  std::optional<std::vector<EndpointInfo>> held_;       // guarded by mutex_
};

}  // namespace llmd::sched
