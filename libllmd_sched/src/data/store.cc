#include "llmd/sched/data/store.h"

#include <algorithm>
#include <unordered_set>
#include <utility>

namespace llmd::sched {
namespace {

// Of process start times, seconds: some engines compute them anew for each page.
constexpr double kSameStart = 1;

const std::shared_ptr<const EndpointMetrics>& NoMetrics() {
  static const auto kNone = std::make_shared<const EndpointMetrics>();
  return kNone;
}

std::string IdentityOf(const EndpointInfo& info) {
  return info.FullName() + " " + info.HostPort();
}

// Several processes may answer at one address: only a younger one than all before counts.
bool Younger(const EndpointMetrics& now, const EndpointMetrics& before) {
  return before.process_start > 0 && now.process_start > before.process_start + kSameStart;
}

bool OnTheirWay(const std::shared_ptr<const EndpointLife>& life) {
  return life->account().requests() > 0;
}

void DropRepeated(std::vector<EndpointInfo>& endpoints) {
  std::unordered_set<std::string> seen;
  std::erase_if(endpoints,
                [&](const EndpointInfo& e) { return !seen.insert(IdentityOf(e)).second; });
}

}  // namespace

void EndpointStore::Update(std::vector<EndpointInfo> endpoints) {
  {
    std::lock_guard lock(mutex_);
    ForgetLeft(Now());
  }
  FreeSlots();
  std::vector<Left> gone;
  {
    std::lock_guard lock(mutex_);
    gone = Replace(std::move(endpoints), Now());
  }
  for (const Left& left : gone) {
    if (gone_) gone_(*left.info, left.life->slot());
  }
  synced_.store(true, std::memory_order_release);
}

// What plugins keep under a slot is dropped outside the lock, and only then may it be taken.
void EndpointStore::FreeSlots() {
  const std::vector<uint32_t> slots = slots_->TakeReturned();
  for (const uint32_t slot : slots) {
    if (slot_free_) slot_free_(slot);
  }
  slots_->Reuse(slots);
}

std::vector<EndpointStore::Left> EndpointStore::Replace(std::vector<EndpointInfo> endpoints,
                                                        TimePoint now) {
  DropRepeated(endpoints);
  std::unordered_map<std::string, size_t> before;
  for (size_t i = 0; i < set_->size(); ++i) before.emplace(IdentityOf(*set_->infos[i]), i);
  std::vector<Member> members(endpoints.size());
  for (size_t i = 0; i < endpoints.size(); ++i) {
    const auto known = before.find(IdentityOf(endpoints[i]));
    if (known == before.end()) continue;
    const size_t old = known->second;
    const bool edited = endpoints[i] != *set_->infos[old];
    members[i] = {
        edited ? std::make_shared<const EndpointInfo>(std::move(endpoints[i])) : set_->infos[old],
        set_->lives[old], metrics_[old]};
    before.erase(known);
  }
  std::vector<Left> gone;
  for (size_t i = set_->size(); i-- > 0;) {
    if (!before.contains(IdentityOf(*set_->infos[i]))) continue;
    gone.push_back({set_->infos[i], set_->lives[i], now, metrics_[i]->process_start});
    if (OnTheirWay(gone.back().life)) left_[set_->host_ports[i]] = gone.back();
  }
  for (size_t i = 0; i < endpoints.size(); ++i) {
    if (!members[i].info) members[i] = Join(std::move(endpoints[i]), now);
  }
  SetMembers(std::move(members));
  ForgetLeft(now);
  std::sort(gone.begin(), gone.end(),
            [](const Left& a, const Left& b) { return a.life->slot() < b.life->slot(); });
  return gone;
}

EndpointStore::Member EndpointStore::Join(EndpointInfo info, TimePoint now) {
  const auto back = left_.find(info.HostPort());
  const bool same = back != left_.end() && OnTheirWay(back->second.life) &&
                    now - back->second.at <= kShortAbsence;
  Member out{std::make_shared<const EndpointInfo>(std::move(info)), nullptr, NoMetrics()};
  if (!same) {
    out.life = std::make_shared<const EndpointLife>(slots_);
    return out;
  }
  EndpointMetrics known;
  known.process_start = back->second.process_start;
  out.life = std::move(back->second.life);
  out.metrics = std::make_shared<const EndpointMetrics>(std::move(known));
  left_.erase(back);
  return out;
}

void EndpointStore::ForgetLeft(TimePoint now) {
  std::erase_if(left_, [now](const auto& entry) {
    const Left& left = entry.second;
    return !OnTheirWay(left.life) || now - left.at > kShortAbsence;
  });
}

void EndpointStore::SetMembers(std::vector<Member> members) {
  auto set = std::make_shared<EndpointSet>();
  metrics_.clear();
  at_.clear();
  for (Member& m : members) {
    at_.emplace(m.info.get(), at_.size());
    metrics_.push_back(std::move(m.metrics));
    set->Add(std::move(m.info), std::move(m.life));
  }
  set->shown = set->WithoutLives();
  set_ = std::move(set);
  snapshot_.reset();
}

void EndpointStore::SetLimit(Duration limit) {
  std::lock_guard lock(mutex_);
  limit_ = limit;
  snapshot_.reset();
}

void EndpointStore::SetMetrics(const std::shared_ptr<const EndpointInfo>& endpoint,
                               EndpointMetrics metrics, bool gauges) {
  std::shared_ptr<const EndpointLife> ended;
  {
    std::lock_guard lock(mutex_);
    const auto it = at_.find(endpoint.get());
    if (it == at_.end()) return;
    const size_t i = it->second;
    if (Younger(metrics, *metrics_[i])) ended = Restart(i);
    metrics.process_start = std::max(metrics.process_start, metrics_[i]->process_start);
    metrics.page = gauges ? ++pages_ : metrics_[i]->page;
    metrics_[i] = std::make_shared<const EndpointMetrics>(std::move(metrics));
    snapshot_.reset();
  }
  if (ended && gone_) gone_(*endpoint, ended->slot());
  ended.reset();
  FreeSlots();
}

std::shared_ptr<const EndpointLife> EndpointStore::Restart(size_t i) {
  std::vector<Member> members;
  for (size_t k = 0; k < set_->size(); ++k)
    members.push_back({set_->infos[k], set_->lives[k], metrics_[k]});
  auto ended = std::exchange(members[i].life, std::make_shared<const EndpointLife>(slots_));
  SetMembers(std::move(members));
  return ended;
}

std::shared_ptr<const EndpointMetrics> EndpointStore::Metrics(
    const std::shared_ptr<const EndpointInfo>& endpoint) const {
  std::lock_guard lock(mutex_);
  const auto it = at_.find(endpoint.get());
  return it == at_.end() ? NoMetrics() : metrics_[it->second];
}

std::shared_ptr<const Snapshot> EndpointStore::Get() const {
  const TimePoint now = Now();
  std::lock_guard lock(mutex_);
  if (!snapshot_ || now > good_until_) snapshot_ = Build(now);
  return snapshot_;
}

TimePoint EndpointStore::GoodUntil() const {
  const TimePoint now = Now();
  std::lock_guard lock(mutex_);
  if (!snapshot_ || now > good_until_) snapshot_ = Build(now);
  return good_until_ == TimePoint::max() ? good_until_ : good_until_ + Duration(1);
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
