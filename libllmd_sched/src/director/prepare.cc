// Producers that may have to wait: the request leaves the thread it came on and goes on where the
// last of them is done.
#include <algorithm>

#include "director/impl.h"
#include "director/producer_wait.h"
#include "llmd/sched/wait_limit.h"
#include "pass/scheduling_pass.h"
#include "pass/stopwatch.h"
#include "trace/schedule_log.h"

namespace llmd::sched {
namespace {

Duration LimitOf(const Plugin& producer) {
  const auto* const limited = dynamic_cast<const WaitLimited*>(&producer);
  return limited ? limited->WaitLimit() : WaitLimited::kDefault;
}

constexpr char kShuttingDown[] = "rejected-shutting-down";

// The answer when the director is gone, and with it all that could count or record it.
void AnswerOfNobody(RequestState& q) {
  Routing routing;
  routing.request_id = q.context.request_id;
  routing.denial = {503, "shutting down", kShuttingDown, 1, {}};
  q.Take(Step::kRefuse);
  q.logger = nullptr;
  q.Answer(routing);
}

// What a producer is to call, or to drop.
class ProducerCall {
 public:
  explicit ProducerCall(std::shared_ptr<ProducerWait> wait) : wait_(std::move(wait)) {}
  ~ProducerCall() { DirectorImpl::Produced(wait_, Internal("it dropped its call")); }
  ProducerCall(const ProducerCall&) = delete;
  ProducerCall& operator=(const ProducerCall&) = delete;
  const std::shared_ptr<ProducerWait>& wait() const { return wait_; }

 private:
  const std::shared_ptr<ProducerWait> wait_;
};

}  // namespace

void DirectorImpl::DenyStopped(const std::shared_ptr<RequestState>& q) {
  Deny(q, 503, "shutting down", kShuttingDown);
}

void DirectorImpl::Prepare(std::shared_ptr<RequestState> q) {
  q->Take(Step::kProduce);
  if (!q->graph->slow) return Decide(q);
  const Door<DirectorImpl>::Visit visit(*door_);
  if (visit.shut()) return DenyStopped(q);
  if (q->flow != nullptr) q->flow->Hold(q->dispatched);
  q->snapshot = store_.Get();
  SetEligible(*q, *q->snapshot);
  RunProducers(std::move(q), 0);
}

// Holds the request itself: the callback it comes from may go away meanwhile.
// NOLINTNEXTLINE(performance-unnecessary-value-param)
void DirectorImpl::RunProducers(std::shared_ptr<RequestState> q, size_t next) {
  RequestContext& request = q->context;
  const std::vector<TimedProducer>& producers = q->setup->graph->producers;
  Stopwatch watch(clock_);
  for (; next < producers.size(); ++next) {
    const TimedProducer& producer = producers[next];
    if (producer.slow != nullptr) return Wait(q, next);
    Status failed;
    if (!RunProducer(*producer.plugin, *q->setup->graph, request, *q->snapshot, failed))
      failures_.Note(*producer.plugin, failed, request.request_id);
    watch.Lap(producer.duration);
  }
  if (!Recheck(q)) return;
  Decide(q);
  if (q->flow != nullptr) q->flow->Release(q->dispatched);
}

bool DirectorImpl::Recheck(const std::shared_ptr<RequestState>& q) {
  const std::shared_ptr<const EndpointSet> now = store_.Members();
  const EndpointSet& seen = *q->snapshot->set;
  if (now.get() == &seen) return true;
  std::erase_if(q->context.eligible, [&](uint32_t i) {
    return std::find(now->lives.begin(), now->lives.end(), seen.lives[i]) == now->lives.end();
  });
  if (!q->context.eligible.empty() || q->again) return true;
  q->again = true;
  for (Attribute& attribute : q->context.attributes) attribute.Clear();
  q->snapshot = store_.Get();
  SetEligible(*q, *q->snapshot);
  RunProducers(q, 0);
  return false;
}

void DirectorImpl::Wait(const std::shared_ptr<RequestState>& q, size_t producer) {
  RequestContext& request = q->context;
  const std::shared_ptr<const Snapshot> snapshot = q->snapshot;
  // The producer outlives its call, whatever becomes of the request in it.
  const std::shared_ptr<const Setup> setup = q->setup;
  const TimedProducer& slow = setup->graph->producers[producer];
  const auto call = std::make_shared<ProducerCall>(AddWait(q, producer));
  const auto ask = [&] {
    slow.slow->ProduceLater(request, snapshot,
                            [call](const Status& status) { Produced(call->wait(), status); });
  };
  // A producer that throws may have kept the call all the same: the first answer counts, and the
  // request is the other's from then on.
  Guarded(*slow.plugin, ask, [&](const Status& failed) {
    if (!call->wait()->Take()) return failures_.Note(*slow.plugin, failed);
    failures_.Note(*slow.plugin, failed, request.request_id);
    ForgetProduced(*slow.plugin, *setup->graph, request);
    GoOn(*call->wait(), failed);
  });
}

std::shared_ptr<ProducerWait> DirectorImpl::AddWait(const std::shared_ptr<RequestState>& q,
                                                    size_t producer) {
  const Duration limit = LimitOf(*q->setup->graph->producers[producer].plugin);
  const TimePoint now = clock_.Now();
  const TimePoint until = limit < TimePoint::max() - now ? now + limit : TimePoint::max();
  auto wait = std::make_shared<ProducerWait>(q, producer, until, clock_, door_);
  {
    const std::lock_guard lock(waits_mutex_);
    wait->place = waits_.insert(waits_.end(), wait);
  }
  if (slow_waiting_.fetch_add(1, std::memory_order_relaxed) == 0) WakeMaintenance();
  return wait;
}

void DirectorImpl::Forget(ProducerWait& wait) {
  slow_waiting_.fetch_sub(1, std::memory_order_relaxed);
  const std::lock_guard lock(waits_mutex_);
  waits_.erase(wait.place);
}

void DirectorImpl::Produced(const std::shared_ptr<ProducerWait>& given, const Status& status) {
  if (given->taken.load()) return;
  const std::shared_ptr<ProducerWait> wait = given;  // the call may go with its maker
  const Door<DirectorImpl>::Visit self(*wait->door);
  if (!wait->Take()) return;
  if (!self) return AnswerOfNobody(*wait->request);
  if (!self.shut()) return self->GoOn(*wait, status);
  self->Forget(*wait);
  self->DenyStopped(wait->request);
}

void DirectorImpl::GoOn(ProducerWait& wait, const Status& status) {
  Forget(wait);
  const std::shared_ptr<RequestState> q = wait.request;
  const TimedProducer& waited = q->setup->graph->producers[wait.producer];
  wait.watch.Lap(waited.duration);
  schedule_log::ProducerFailed(q->context, *waited.plugin, status);
  RunProducers(q, wait.producer + 1);
}

void DirectorImpl::EndWaits(TimePoint now) {
  std::vector<std::shared_ptr<ProducerWait>> over;
  {
    const std::lock_guard lock(waits_mutex_);
    for (const auto& wait : waits_) {
      if (wait->limit <= now && wait->Take()) over.push_back(wait);
    }
  }
  for (const auto& wait : over) {
    Forget(*wait);
    RequestState& q = *wait->request;
    const Plugin& plugin = *q.setup->graph->producers[wait->producer].plugin;
    q.lent = true;
    if (now == TimePoint::max()) {
      DenyStopped(wait->request);
      continue;
    }
    failures_.Note(plugin, DeadlineExceeded("a request waited for it as long as it may"),
                   q.context.request_id);
    Deny(wait->request, 503, "the producer '" + plugin.name() + "' did not answer in time", "");
  }
}

void DirectorImpl::TickProducers(TimePoint now) {
  for (const auto& graph : LiveGraphs()) {
    for (const TimedProducer& producer : graph->producers)
      if (producer.slow != nullptr)
        failures_.Run(*producer.plugin, "", [&] { producer.slow->Tick(now); });
  }
}

TimePoint DirectorImpl::ProducersDue(TimePoint now) {
  TimePoint due = TimePoint::max();
  for (const auto& graph : LiveGraphs()) {
    for (const TimedProducer& producer : graph->producers)
      if (producer.slow != nullptr)
        failures_.Run(*producer.plugin, "",
                      [&] { due = std::min(due, producer.slow->DueAt(now)); });
  }
  const std::lock_guard lock(waits_mutex_);
  for (const auto& wait : waits_) due = std::min(due, wait->limit);
  return due;
}

}  // namespace llmd::sched
