#include "llmd/sched/data/store.h"

#include <algorithm>

namespace llmd::sched {
namespace {

const std::shared_ptr<const EndpointMetrics>& NoMetrics() {
  static const auto kNone = std::make_shared<const EndpointMetrics>();
  return kNone;
}

}  // namespace

void EndpointStore::Update(std::vector<EndpointInfo> endpoints) {
  std::vector<std::pair<std::shared_ptr<const EndpointInfo>, uint32_t>> gone;
  {
    std::lock_guard lock(mutex_);
    std::vector<bool> stays(set_->size());
    std::vector<size_t> old_index;
    for (const EndpointInfo& e : endpoints) {
      const auto same = std::find_if(set_->infos.begin(), set_->infos.end(),
                                     [&](const auto& i) { return *i == e; });
      old_index.push_back(static_cast<size_t>(same - set_->infos.begin()));
      if (same != set_->infos.end()) stays[old_index.back()] = true;
    }
    for (size_t i = 0; i < stays.size(); ++i) {
      if (!stays[i]) gone.emplace_back(set_->infos[i], set_->slots[i]);
    }
    auto set = std::make_shared<EndpointSet>();
    std::vector<std::shared_ptr<const EndpointMetrics>> metrics;
    for (size_t i = 0; i < endpoints.size(); ++i) {
      const bool known = old_index[i] < set_->size();
      // A slot that became free in this call is not reused in it: its state is dropped after the
      // lock.
      const uint32_t slot = known ? set_->slots[old_index[i]] : NewSlot();
      metrics.push_back(known ? metrics_[old_index[i]] : NoMetrics());
      set->Add(known ? set_->infos[old_index[i]]
                     : std::make_shared<const EndpointInfo>(std::move(endpoints[i])),
               slot);
    }
    set_ = std::move(set);
    metrics_ = std::move(metrics);
    snapshot_.reset();
  }
  for (const auto& [info, slot] : gone) {
    if (gone_) gone_(*info, slot);
  }
  {
    std::lock_guard lock(mutex_);
    for (const auto& [info, slot] : gone) slot_used_[slot] = false;
  }
  synced_.store(true, std::memory_order_release);
}

void EndpointStore::SetLimit(Duration limit) {
  std::lock_guard lock(mutex_);
  limit_ = limit;
  snapshot_.reset();
}

uint32_t EndpointStore::NewSlot() {
  const auto free = std::find(slot_used_.begin(), slot_used_.end(), false);
  const uint32_t slot = static_cast<uint32_t>(free - slot_used_.begin());
  if (free == slot_used_.end())
    slot_used_.push_back(true);
  else
    *free = true;
  return slot;
}

void EndpointStore::SetMetrics(const std::shared_ptr<const EndpointInfo>& endpoint,
                               EndpointMetrics metrics) {
  auto shared = std::make_shared<const EndpointMetrics>(std::move(metrics));
  std::lock_guard lock(mutex_);
  const auto it = std::find(set_->infos.begin(), set_->infos.end(), endpoint);
  if (it == set_->infos.end()) return;
  metrics_[static_cast<size_t>(it - set_->infos.begin())] = std::move(shared);
  snapshot_.reset();
}

std::shared_ptr<const EndpointMetrics> EndpointStore::Metrics(
    const std::shared_ptr<const EndpointInfo>& endpoint) const {
  std::lock_guard lock(mutex_);
  const auto it = std::find(set_->infos.begin(), set_->infos.end(), endpoint);
  return it == set_->infos.end() ? NoMetrics()
                                 : metrics_[static_cast<size_t>(it - set_->infos.begin())];
}

std::shared_ptr<const Snapshot> EndpointStore::Get() const {
  const TimePoint now = clock_ ? clock_->Now() : TimePoint();
  std::lock_guard lock(mutex_);
  if (!snapshot_ || now > good_until_) snapshot_ = Build(now);
  return snapshot_;
}

std::shared_ptr<const Snapshot> EndpointStore::Build(TimePoint now) const {
  auto fresh = std::make_shared<Snapshot>();
  fresh->epoch = ++epoch_;
  fresh->set = set_;
  good_until_ = TimePoint::max();
  const bool ages = clock_ && limit_ != kNeverStale;
  for (const auto& m : metrics_) {
    const bool stale = ages && (!m->ever || now - m->updated > limit_);
    if (ages && !stale) good_until_ = std::min(good_until_, m->updated + limit_);
    if (stale)
      fresh->AddStale(*m, now);
    else
      fresh->Add(m, now);
    for (const AttributeValue& a : m->attributes) {
      if (a.fresh_until >= now) good_until_ = std::min(good_until_, a.fresh_until);
    }
  }
  return fresh;
}

std::shared_ptr<const EndpointSet> EndpointStore::Members() const {
  std::lock_guard lock(mutex_);
  return set_;
}

}  // namespace llmd::sched
