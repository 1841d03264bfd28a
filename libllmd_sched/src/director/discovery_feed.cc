#include "director/discovery_feed.h"

#include <utility>

namespace llmd::sched {

void DiscoveryFeed::OnPolicy(Policy policy) {
  std::lock_guard lock(mutex_);
  policy_ = std::move(policy);
}

void DiscoveryFeed::OnEndpoints(std::vector<EndpointInfo> endpoints) {
  Policy policy;
  {
    std::lock_guard lock(mutex_);
    if (state_ == kHolding) {
      held_ = std::move(endpoints);
      return;
    }
    if (state_ == kClosed) return;
    policy = policy_;
  }
  apply_(std::move(endpoints), std::move(policy));
}

void DiscoveryFeed::Open() {
  while (true) {
    std::vector<EndpointInfo> endpoints;
    Policy policy;
    {
      std::lock_guard lock(mutex_);
      if (state_ != kHolding) return;
      // What comes while the held set is applied is held too, so that the newest goes last.
      if (!held_) {
        state_ = kOpen;
        return;
      }
      endpoints = *std::exchange(held_, std::nullopt);
      policy = policy_;
    }
    apply_(std::move(endpoints), std::move(policy));
  }
}

void DiscoveryFeed::Close() {
  std::lock_guard lock(mutex_);
  state_ = kClosed;
}

}  // namespace llmd::sched
