// How requests leave flow control other than by their turn, and what the passing of time does.
#include <algorithm>
#include <cmath>

#include "flow/controller.h"

namespace llmd::sched {
namespace {

constexpr Duration kCollectEvery = std::chrono::seconds(10);
// How often is looked at what says of no time when it changes.
constexpr Duration kAskAgain = std::chrono::milliseconds(10);

}  // namespace

double FlowController::UnderWay(const PoolLoad& load) const {
  if (load.per_request < INFINITY) return static_cast<double>(deciding_ + held_) * load.per_request;
  const size_t decided = in_flight_ - std::min(in_flight_, deciding_ + held_);
  if (deciding_ > 0 || decided == 0) return INFINITY;
  return load.effective * static_cast<double>(held_) / static_cast<double>(decided);
}

void FlowController::Unhold(FlowItem& item) {
  if (!std::exchange(item.held, false)) return;
  --held_;
}

void FlowController::Hold(uint64_t ticket) {
  std::lock_guard lock(mutex_);
  FlowItem* const item = items_.Find(ticket, FlowItem::State::kInFlight);
  if (item == nullptr || std::exchange(item->held, true)) return;
  ++held_;
}

void FlowController::Release(uint64_t ticket) {
  {
    std::lock_guard lock(mutex_);
    FlowItem* const item = items_.Find(ticket, FlowItem::State::kInFlight);
    if (item == nullptr || !item->held) return;
    Unhold(*item);
  }
  Pump();
}

void FlowController::Complete(uint64_t ticket, const FlowUsage& usage) {
  std::function<void()> revoke;  // goes after the lock
  {
    std::lock_guard lock(mutex_);
    FlowItem* const item = items_.Find(ticket, FlowItem::State::kInFlight);
    if (item == nullptr) return;
    const TimePoint now = clock_.Now();
    FlowQueue& flow = *item->flow;
    flow.band->fairness->Completed(flow, *item, now, item->charge, usage);
    if (evictor_) evictor_->Ended(*item, now);
    Unhold(*item);
    --in_flight_;
    revoke.swap(item->revoke);
    items_.Free(*item);
    flow.band->Ended(flow, now);
  }
  Pump();
}

// The clock of waiting requests restarts when the pool becomes empty, or usable again; a client's
// own deadline does not.
void FlowController::FollowRegime(TimePoint now) {
  const bool empty = hooks_.empty();
  if (std::exchange(was_empty_, empty) == empty) return;
  for (const auto& [priority, band] : bands_) {
    for (FlowItem* item = band->oldest; item != nullptr; item = item->newer) {
      item->regime_start = now;
      SetExpiry(*item);
      if (item->in_expiry != kNotInHeap) expiry_.Remove(item);
      if (item->expires != TimePoint::max()) expiry_.Push(item);
    }
  }
}

void FlowController::Expire() {
  Ended ended;
  {
    std::lock_guard lock(mutex_);
    const TimePoint now = clock_.Now();
    FollowRegime(now);
    while (!expiry_.empty() && expiry_.top()->expires <= now) {
      ended.push_back(
          Leave(*expiry_.top(),
                was_empty_ ? FlowOutcome::kEvictedNoEndpoints : FlowOutcome::kEvictedTtl, now));
    }
    if (now >= collect_at_) Collect(now);
  }
  Run(ended);
}

TimePoint FlowController::NextDue(TimePoint now) const {
  std::lock_guard lock(mutex_);
  TimePoint due = expiry_.empty() ? TimePoint::max() : expiry_.top()->expires;
  // A revocation has its time to show in; ceilings may be others each time they are asked for.
  const bool asks = (evictor_ && evictor_->waiting()) || !(was_empty_ || config_->limit->repeats());
  if (asks && requests_ > 0) due = std::min(due, now + kAskAgain);
  const bool may_idle = bands_.size() > config_->bands.size() ||
                        std::any_of(bands_.begin(), bands_.end(),
                                    [](const auto& b) { return b.second->flow_count() > 0; });
  return may_idle ? std::min(due, collect_at_) : due;
}

void FlowController::Collect(TimePoint now) {
  collect_at_ = now + kCollectEvery;
  for (auto it = bands_.begin(); it != bands_.end();) {
    Band& band = *it->second;
    band.CollectIdle(now - kIdleFlow);
    const bool idle = band.requests == 0 && band.flow_count() == 0;
    if (!idle || band.configured || now - band.last_used < kIdleBand) {
      ++it;
      continue;
    }
    priorities_.erase(std::find(priorities_.begin(), priorities_.end(), it->first));
    ceilings_.resize(priorities_.size());
    it = bands_.erase(it);
  }
}

void FlowController::Cancel(uint64_t ticket) {
  Ended ended;
  {
    std::lock_guard lock(mutex_);
    if (FlowItem* const item = items_.Find(ticket, FlowItem::State::kQueued)) {
      ended.push_back(Leave(*item, FlowOutcome::kCancelled, clock_.Now()));
    }
  }
  Run(ended);
}

void FlowController::Stop() {
  Ended ended;
  {
    std::lock_guard lock(mutex_);
    stopped_ = true;
    const TimePoint now = clock_.Now();
    for (const auto& [priority, band] : bands_) {
      while (band->oldest != nullptr)
        ended.push_back(Leave(*band->oldest, FlowOutcome::kShuttingDown, now));
    }
  }
  Run(ended);
}

}  // namespace llmd::sched
