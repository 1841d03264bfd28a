// Time as it reaches the director: from its own thread, or from whoever drives it by hand.
#include <algorithm>
#include <set>

#include "director/impl.h"

namespace llmd::sched {
namespace {

constexpr auto kIdleTick = std::chrono::seconds(1);
// Within this a gate opened by fresh metrics is seen.
constexpr auto kFlowTick = std::chrono::milliseconds(10);

}  // namespace

TimePoint DirectorImpl::Tick(TimePoint now) {
  TimePoint due = TimePoint::max();
  const std::shared_ptr<FlowController> flow = setup_.Load()->flow;
  if (flow) {
    if (now >= show_load_at_.load(std::memory_order_relaxed)) {
      flow->ShowLoad();
      show_load_at_.store(now + kIdleTick, std::memory_order_relaxed);
    }
    flow->Expire();
    flow->Pump();
  }
  if (slow_waiting_.load(std::memory_order_relaxed) > 0) {
    TickProducers(now);
    EndWaits(now);
    if (slow_waiting_.load(std::memory_order_relaxed) > 0) due = ProducersDue(now);
  }
  if (flow) due = std::min({due, flow->NextDue(now), GateDue(*flow, now)});
  return std::max(due, now + Duration(1));
}

// Metrics that grow stale, for all or for the detector, may open the gate or close it.
TimePoint DirectorImpl::GateDue(const FlowController& flow, TimePoint now) {
  if (flow.size() == 0) return TimePoint::max();
  const TimePoint good_until = store_.GoodUntil();
  const std::shared_ptr<const Snapshot> snapshot = store_.Get();
  if (snapshot->size() == 0) return TimePoint::max();
  return std::min(good_until, setup_.Load()->meter->ChangesAt(*snapshot, now));
}

void DirectorImpl::Maintain() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    lock.unlock();
    Tick(clock_.Now());
    lock.lock();
    idle_ = !Busy();
    wake_.wait_for(lock, idle_ ? Duration(kIdleTick) : Duration(kFlowTick),
                   [this] { return stopping_ || (idle_ && Busy()); });
    idle_ = false;
  }
}

bool DirectorImpl::Busy() const {
  const std::shared_ptr<const Setup> setup = setup_.Load();
  return slow_waiting_.load(std::memory_order_relaxed) > 0 ||
         (setup->flow && setup->flow->size() > 0);
}

void DirectorImpl::WakeMaintenance() {
  {
    std::lock_guard lock(mutex_);
    if (!idle_) return;
  }
  wake_.notify_all();
}

Status DirectorImpl::SetEndpoints(std::vector<EndpointInfo> endpoints) {
  std::set<std::pair<std::string, std::string>> seen;
  for (const EndpointInfo& e : endpoints) {
    if (!seen.emplace(e.FullName(), e.HostPort()).second) {
      return InvalidArgument("endpoint '" + e.FullName() + "' at " + e.HostPort() +
                             " is given twice");
    }
  }
  OnEndpoints(std::move(endpoints), Policy());
  return OkStatus();
}

Status DirectorImpl::SetMetrics(std::string_view name, EndpointMetrics metrics) {
  const std::shared_ptr<const EndpointSet> members = store_.Members();
  const auto at = std::find(members->names.begin(), members->names.end(), name);
  if (at == members->names.end())
    return NotFound("no endpoint is called '" + std::string(name) + "'");
  return SetMetrics(*members, static_cast<size_t>(at - members->names.begin()), std::move(metrics));
}

Status DirectorImpl::SetMetrics(EndpointId id, EndpointMetrics metrics) {
  const std::shared_ptr<const EndpointSet> members = store_.Members();
  for (size_t i = 0; i < members->size(); ++i) {
    if (members->lives[i]->id() == id) return SetMetrics(*members, i, std::move(metrics));
  }
  return NotFound("that endpoint has left");
}

Status DirectorImpl::SetMetrics(const EndpointSet& members, size_t i, EndpointMetrics metrics) {
  if (metrics.updated == TimePoint()) metrics.updated = clock_.Now();
  metrics.ever = true;
  store_.SetMetrics(members.infos[i], std::move(metrics));
  return OkStatus();
}

}  // namespace llmd::sched
